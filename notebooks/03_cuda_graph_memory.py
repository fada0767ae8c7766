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
# # What memory do CUDA graphs of a quantised stack pin?
#
# **Question.** A stack of weight-only quantised layers is captured as one CUDA graph per batch
# size. The weights take 128 MiB. Why can the device be short of several times that, and which of
# the knobs that people turn gives how much of it back?
#
# Evidence: the allocations of one forward as compiled code makes them, sent through a model of
# PyTorch's CUDA caching allocator (modelled; the model is checked against recorded snapshots in
# `tests/allocator`). No GPU took part.

# %% tags=["parameters"]
layers = 8
width = 4096
sizes = (64, 32, 16, 8, 4, 2, 1)  # captured in this order
workspace_mib = 32

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

from common.allocator.layer_stack import Knobs, Stack, capture_all, forward, knob_table, measure
from common.allocator.snapshot_file import write_snapshot
from common.diff.diff import compare_files
from common.report.diff_text import difference_text
from common.report.tables import Table

plt.rcParams.update({"figure.dpi": 72, "font.size": 9, "axes.spines.top": False,
                     "axes.spines.right": False})  # fmt: skip
MIB = 1 << 20
stack = Stack(layers=layers, width=width, workspace_bytes=workspace_mib * MIB)
base = Knobs(sizes=sizes, warm_up="default pool", prefill_tokens=2048)
quantised = layers * width * width * stack.quantised_bytes
print(
    f"{layers} weights of {width} x {width}: {quantised / MIB:.0f} MiB quantised, "
    f"{stack.weight_bytes / MIB:.0f} MiB each when dequantised"
)

# %% [markdown]
# ## By hand first
#
# One forward frees each dequantised weight when its layer is done. How many bytes live at once, at
# most? Work it out for batch 1 before you run the next cell.

# %%
live = peak = 0
held: dict[str, int] = {}
for step in forward(stack, sizes[-1], "streamed"):
    if step.size is None:
        live -= held.pop(step.name)
    else:
        held[step.name] = step.size
        live += step.size
    peak = max(peak, live)
print(f"peak of one forward: {peak / MIB:.2f} MiB")
print(f"workspace + one weight: {(stack.workspace_bytes + stack.weight_bytes) / MIB:.2f} MiB")

# %% [markdown]
# ## What each capture adds
#
# Every graph has a private pool, and a private pool keeps what the graph once needed, for as long
# as the graph lives: its replays use these addresses.

# %%
own = measure(stack, base)
shared = measure(
    stack, Knobs(sizes=sizes, warm_up="default pool", prefill_tokens=2048, share_pool=True)
)
for name, memories in (("a pool per graph", own), ("one pool for all", shared)):
    print(
        f"{name:18} {memories.private_reserved_bytes / MIB:6.0f} MiB private; growth per capture "
        f"{[round(g / MIB) for g in memories.growth_bytes]}"
    )

# %%
figure, axes = plt.subplots(figsize=(8, 2.6))
for memories, colour, label in (
    (own, "#b42318", "a pool per graph"),
    (shared, "#2f6fab", "one pool for all"),
):
    total, line = 0, [0.0]
    for growth in memories.growth_bytes:
        total += growth
        line.append(total / MIB)
    axes.step(range(len(line)), line, where="post", color=colour, label=label)
axes.set_xticks(range(len(sizes) + 1), ["", *map(str, sizes)])
axes.set_xlabel("batch size captured (largest first)")
axes.set_ylabel("private pools, MiB (modelled)")
axes.legend(frameon=False)
axes.set_title("Seven graphs, one forward's memory each, or one for all", loc="left")
figure.tight_layout()

# %% [markdown]
# Sharing works because the largest size comes first: every later one fits into what it left.
#
# ## As a snapshot, diffed
#
# The model writes the file that `torch.cuda.memory` writes, so the tools for real snapshots read
# it.

# %%
with tempfile.TemporaryDirectory() as place:
    files = []
    for name, knobs in (
        ("own", base),
        (
            "shared",
            Knobs(sizes=sizes, warm_up="default pool", prefill_tokens=2048, share_pool=True),
        ),
    ):
        allocator, _ = capture_all(stack, knobs)
        files.append(write_snapshot(Path(place) / f"{name}.pickle", allocator))
    difference = compare_files(str(files[0]), str(files[1]), "pool")
print(difference_text(difference, top=6, width=96, colour=False))
assert difference.residual == 0

# %% [markdown]
# The *peak of requested bytes*, which this diff is about, hardly moves: it is what is reserved
# and held by nobody that does. A tool that reports allocated bytes alone does not see this
# problem.
#
# ## Every knob

# %%
rows = knob_table(stack, base)
print(
    Table(
        ("knob", "private MiB", "held by nobody", "default, peak", "default, end", "saved MiB"),
        tuple(
            (
                r.knob,
                *(
                    f"{v / MIB:,.0f}"
                    for v in (
                        r.memories.private_reserved_bytes,
                        r.memories.private_retained_bytes,
                        r.memories.default_peak_reserved_bytes,
                        r.memories.default_reserved_bytes,
                        r.saved_bytes,
                    )
                ),
            )
            for r in rows
        ),
        ("private MiB", "held by nobody", "default, peak", "default, end", "saved MiB"),
    ).text()
)

# %%
figure, axes = plt.subplots(figsize=(8, 3.8))
axes.barh(
    [r.knob for r in rows],
    [r.saved_bytes / MIB for r in rows],
    color=["#1a6b3c" if r.saved_bytes > 0 else "#b42318" for r in rows],
)
axes.axvline(0, color="#59636e", lw=1)
axes.invert_yaxis()
axes.set_xlabel("MiB given back against the base (modelled)")
axes.set_title("One pool is most of it; a stream per graph undoes it", loc="left")
figure.tight_layout()

# %% [markdown]
# ## Conclusion

# %%
best = max(rows, key=lambda r: r.saved_bytes)
worst = min(rows, key=lambda r: r.saved_bytes)
print(
    f"most saved: {best.knob}, {best.saved_bytes / MIB:.0f} MiB; "
    f"dearest: {worst.knob}, {-worst.saved_bytes / MIB:.0f} MiB more"
)
print(
    f"a pool per graph pins {own.private_reserved_bytes / quantised:.1f} times the quantised "
    f"weights, one pool {shared.private_reserved_bytes / quantised:.1f} times"
)

# %% [markdown]
# - What a private pool pins is the peak of one forward, per graph: workspace, one dequantised
#   weight, rounding. Seven sizes pin it seven times.
# - One pool for all, captured largest first and on one stream, pins it once.
# - Expandable segments do not help here: their granule is larger than what they save.
# - Dequantising everything first is what a compiler that hoists would do, and costs most.
#
# **Not shown:** the driver's own memory for graphs and context, which torch does not count, and
# whether a real run makes exactly these allocations.
#
# **Try it:** capture the smallest size first. Why does the shared pool grow twice?
