# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Were the floors and the predictions any good?
#
# **Question.** Every worklog here states a floor and sealed predictions before it measures. A floor
# that is beaten was wrong; a prediction that always hits was too wide. How did they come out?
#
# Evidence: the recorded runs of all problems (measured-cpu or compiled, as each says), their sealed
# predictions, published figures of devices (published). A prediction is a hit only if the whole
# interval of the measurement lies inside it, a miss only if none of it does.

# %% tags=["parameters"]
problems: tuple[str, ...] = ()  # empty: all of this repository
devices = (
    "NVIDIA GeForce RTX 4090",
    "NVIDIA GeForce RTX 5090",
    "NVIDIA H100 80GB HBM3",
    "NVIDIA H200",
)  # names as the driver says them

# %%
import matplotlib.pyplot as plt

from common.contract.predictions import score
from common.contract.problem import load_problem, problem_names
from common.errors import WorklogError
from common.floors import published
from common.floors.devices import find_device
from common.floors.roofline import time_floor_ns
from common.floors.traffic import bytes_per_weight, decode_floor_ns, tokens_per_s
from common.report.run_tables import cpu_capability
from common.report.run_view import read_view
from common.report.tables import Table, significant

plt.rcParams.update({"figure.dpi": 72, "font.size": 9, "axes.spines.top": False,
                     "axes.spines.right": False})  # fmt: skip
chosen = [load_problem(name) for name in problems or problem_names()]
print(", ".join(problem.name for problem in chosen))

# %% [markdown]
# ## The roofline of four devices
#
# A kernel needs at least the time to move its bytes and at least the time to do its operations.
# Where the two are equal, in operations per byte, is the ridge. Decode at batch 1 does one
# operation per byte of bf16 weights: two operations per weight, two bytes.

# %%
known = [found for name in devices if (found := find_device(name)) is not None]
rows = []
for device in known:
    bandwidth = device.value("memory_bandwidth_gb_per_s")
    rate = device.value("bf16_tflop_per_s")
    ridge = rate * 1e3 / bandwidth
    floor = time_floor_ns(1e9, 1e9, bandwidth, rate)
    rows.append((device.title, f"{bandwidth:,.0f}", f"{rate:,.0f}", f"{ridge:.0f}", floor.bound))
columns = ("device", "GB/s", "bf16 TFLOP/s", "ridge, operations per byte", "decode is bound by")
print(Table(columns, tuple(rows), columns[1:-1]).text())

# %%
figure, axes = plt.subplots(figsize=(8, 3.2))
intensity = [2**n for n in range(-2, 12)]
for device, colour in zip(known, ("#2f6fab", "#b85a1e", "#257a6c", "#9b4f96"), strict=False):
    bandwidth = device.value("memory_bandwidth_gb_per_s")
    rate = device.value("bf16_tflop_per_s")
    axes.plot(
        intensity,
        [min(rate, bandwidth * i / 1e3) for i in intensity],
        color=colour,
        label=device.title,
    )
axes.axvline(1, color="#59636e", lw=1, ls="--")
axes.text(1.1, 700, "decode, batch 1", fontsize=8, color="#59636e")
axes.set_xscale("log", base=2)
axes.set_yscale("log")
axes.set_xlabel("operations per byte")
axes.set_ylabel("TFLOP/s (published)")
axes.legend(frameon=False, fontsize=8)
axes.set_title("Decode lies two decades left of every ridge", loc="left")
figure.tight_layout()

# %% [markdown]
# So the floor of decode is bytes over bandwidth. For Llama 3.1 8B's linear weights, in tokens per
# second:

# %%
weights = published.MODELS["8B"].linears
paths = (
    "bf16",
    "float8-fused-gemv",
    "float8-0.14.1-compiled-cpu",
    "float8-0.14.1-eager",
    "float8-0.13.0-eager",
)


def fastest(path, device):
    floor_ns = decode_floor_ns(weights, path, device.value("memory_bandwidth_gb_per_s"))
    return tokens_per_s(floor_ns)


print(
    Table(
        ("path", "bytes per weight", *(device.title for device in known)),
        tuple(
            (
                path,
                str(bytes_per_weight(path)),
                *(f"{fastest(path, device):.0f}" for device in known),
            )
            for path in paths
        ),
        ("bytes per weight", *(device.title for device in known)),
    ).text()
)

# %% [markdown]
# ## Floors against measurements
#
# Share of the floor that each recorded variant reaches. More than 100 % would refute the floor.

# %%
views = []
for problem in chosen:
    for key, place in problem.evidence.items():
        try:
            views.append((problem, key, read_view(problem.folder / place)))
        except WorklogError as error:
            print(f"{problem.name} {key}: not read ({type(error).__name__})")
shares = [
    (f"{problem.name}, {key}: {name}", variant["floor"]["share_of_floor"])
    for problem, key, view in views
    for name, variant in view.variants.items()
    if variant.get("floor")
]
for name, share in shares:
    print(f"{100 * share:6.1f} %  {name}")
beaten = [name for name, share in shares if share > 1]
print(f"floors that were beaten, and so are wrong: {', '.join(beaten) or 'none'}")

# %% [markdown]
# ## Predictions against measurements

# %%
scored = []
for problem, key, view in views:
    for sets in problem.predictions:
        cpu = cpu_capability(view.manifest)
        if sets.applies_to(view.summary["device"]["slug"], view.summary["preset"], cpu=cpu):
            sealed = view.manifest["predictions"].get(sets.name) == sets.sha256
            for result in score(sets, view.evidence.quantities()):
                scored.append((f"{problem.name}, {key}", sets.name, sealed, result))
words = {True: "hit", False: "miss", None: "undecided"}
calibration: dict[tuple[str, str, bool], list[str]] = {}
for name, set_name, sealed, result in scored:
    found = words[result.hit] if result.value is not None else "not measured"
    calibration.setdefault((name, set_name, sealed), []).append(found)
columns = ("problem", "set", "sealed before", "hit", "miss", "undecided", "not measured")
print(
    Table(
        columns,
        tuple(
            (
                name,
                set_name,
                "yes" if sealed else "no: retrospective",
                *(str(found.count(word)) for word in columns[3:]),
            )
            for (name, set_name, sealed), found in calibration.items()
            if set(found) != {"not measured"}
        ),
        columns[3:],
    ).text()
)
for name, _, _, result in scored:
    if result.value is not None and result.hit is not True:
        print(
            f"{words[result.hit]}: {name} {result.prediction.id} {result.prediction.quantity}: "
            f"{significant(result.value)} against {significant(result.prediction.low)} … "
            f"{significant(result.prediction.high)}"
        )

# %% [markdown]
# Each prediction once, by the first run that it was sealed before, on a scale of its own: its range
# from 0 to 1, the measurement with its interval in it. Dots all in the middle would mean that the
# ranges were too wide to be worth much.

# %%
first = {}
for name, set_name, sealed, result in scored:
    if result.value is None or result.prediction.high <= result.prediction.low:
        continue
    of = (name.partition(",")[0], set_name, result.prediction.id)
    if of not in first or (sealed and not first[of][0]):
        first[of] = (sealed, name, result)
drawn = [(name, result) for _, name, result in first.values()]
before = [None, *(name for name, _ in drawn)]
labels = [  # a run's name stands once, at its first prediction
    result.prediction.id if name == last else f"{name}: {result.prediction.id}"
    for last, (name, result) in zip(before, drawn, strict=False)
]
figure, axes = plt.subplots(figsize=(8, 0.6 + 0.22 * len(drawn)))
for place, (_, result) in enumerate(drawn):
    low, width = result.prediction.low, result.prediction.high - result.prediction.low
    ends = result.interval or (result.value, result.value)
    colour = {True: "#1a6b3c", False: "#b42318", None: "#7a4b00"}[result.hit]
    axes.plot([(end - low) / width for end in ends], [place, place], color=colour, lw=1.5)
    axes.plot((result.value - low) / width, place, "o", color=colour, ms=4)
axes.axvspan(0, 1, color="#e6eaee", zorder=0)
axes.set_yticks(range(len(drawn)), labels)
axes.set_xlim(-0.6, 1.6)
axes.set_ylim(len(drawn), -1)
axes.set_xlabel("place in the predicted range")
axes.set_title(
    "Most measurements fall inside; those that cross an edge are not counted", loc="left"
)
figure.tight_layout()

# %% [markdown]
# ## The same arithmetic on rows that others published

# %%
scores = [s for s in published.all_scores() if s.role != "calibrates"]
print(
    Table(
        ("model", "card", "figure", "published", "modelled", "error", "role"),
        tuple(
            (
                s.model,
                s.card,
                s.figure,
                significant(s.published),
                significant(s.modelled),
                f"{100 * s.error:+.1f} %",
                s.role,
            )
            for s in scores
        ),
        ("published", "modelled", "error"),
    ).text()
)

# %% [markdown]
# ## Conclusion

# %%
results = [words[r.hit] for *_, r in scored if r.value is not None]
errors = [abs(s.error) for s in scores if s.role == "predicted"]
print(
    f"{len(shares)} shares of a floor, the largest {100 * max(s for _, s in shares):.0f} %; "
    f"{len(beaten)} floors beaten"
)
print(
    f"{len(results)} predictions measured: "
    + ", ".join(f"{results.count(word)} {word}" for word in ("hit", "miss", "undecided"))
)
print(
    f"{len(errors)} published figures predicted from bytes: mean |error| "
    f"{100 * sum(errors) / len(errors):.1f} %, worst {100 * max(errors):.1f} %"
)

# %% [markdown]
# - The distance to a floor is large wherever something beside traffic costs time; a floor that was
#   beaten would stand above with more than 100 %.
# - Predictions from counted bytes (memory, shares) are narrow; those of ratios are wide, and
#   where the measurement's own interval is wide as well they stay undecided. That is a reason to
#   measure longer, not to call it a hit.
# - Some sets were not blind, and say so in their `basis`. All sets about GPUs are open.
#
# **Try it:** take the range of one prediction that hit and halve it around your own best guess
# before you look. Does it still hit?
