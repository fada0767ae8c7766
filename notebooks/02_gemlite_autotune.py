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
# # What does GemLite's autotuner choose between?
#
# **Question.** GemLite ships a table of tuned configurations per GPU, and tunes on the first call
# where the table has no entry. For a 4096 × 4096 layer with 4-bit weights at batch 8 on an RTX
# 4090: how does the configuration that once won differ, *as machine code*, from those that
# today's default list would try?
#
# Evidence: kernels compiled for sm_89 from GemLite's own source, disassembled and counted
# (compiled), and the published tables (published). No kernel was run, so nothing here says which is
# faster; the predictions about that are sealed.

# %% tags=["parameters"]
problem_name = "gemlite_autotune"
evidence_key = "cpu"
gpu = "rtx-4090"
batch = "m8"

# %%
import matplotlib.pyplot as plt

from common.contract.problem import load_problem
from common.diff.compiled import diff_compiled
from common.recording.run_folder import open_run
from common.report.compiled_page import compiled_difference
from common.report.evidence import Evidence
from common.report.tables import Table
from common.traces.compiled_kernel import read_compiled, summarise_compiled

plt.rcParams.update({"figure.dpi": 72, "font.size": 9, "axes.spines.top": False,
                     "axes.spines.right": False})  # fmt: skip
problem = load_problem(problem_name)
run = open_run(problem.folder / problem.evidence[evidence_key])
evidence = Evidence(run)
print(run.manifest["problem"], run.manifest["preset"]["name"], run.manifest["origin"])

# %% [markdown]
# ## What is shipped, and what would be tried today?
#
# How many of the 4090's tuned entries are still in the lists that the autotuner builds now. Guess
# first: a list is made *from* such winners, is it not?

# %%
stored = evidence.tables("shipped")["coverage"]
print(
    Table(
        tuple(stored["columns"]), tuple(map(tuple, stored["rows"])), tuple(stored["right"])
    ).text()
)

# %% [markdown]
# Not one of the winners of the two GEMM families is in today's default list. Which batches still
# reach the table at all?

# %%
stored = evidence.tables("shipped")[f"routes-{gpu}"]
print(
    Table(
        tuple(stored["columns"]), tuple(map(tuple, stored["rows"][:12])), tuple(stored["right"])
    ).text()
)

# %% [markdown]
# ## The kernels themselves
#
# Every listed configuration, compiled. Three quantities decide how many blocks an SM can hold at
# once: registers, shared memory, threads.

# %%
folder = run.folder / "traces" / gpu / "kernels"
kernels = [read_compiled(path) for path in sorted(folder.glob(f"{batch}-*.json.gz"))]
stored = evidence.tables(gpu)[batch]
winner_name = stored["rows"][0][0].split(" (")[0]
winner = next(k for k in kernels if k.facts["config"] == winner_name)
others = [k for k in kernels if k is not winner]
print(f"{len(kernels)} kernels; the 4090's shipped winner is {winner_name}")
rows = [
    (
        k.facts["config"],
        k.resources["registers"],
        k.resources["shared_bytes"],
        k.metrics["blocks_per_sm"],
        k.metrics["occupancy"],
        k.metrics["waves"],
        k.count("LDGSTS"),
        k.loop_instructions,
    )
    for k in [winner, *sorted(others, key=lambda k: -k.metrics["occupancy"])]
]
columns = (
    "configuration",
    "registers",
    "shared bytes",
    "blocks per SM",
    "occupancy",
    "waves",
    "LDGSTS",
    "in the loop",
)
print(
    Table(
        columns, tuple((row[0], *(f"{v:,}" for v in row[1:])) for row in rows), columns[1:]
    ).text()
)

# %%
figure, axes = plt.subplots(figsize=(8, 3.2))
axes.scatter(
    [k.resources["shared_bytes"] / 1024 for k in others],
    [k.metrics["occupancy"] for k in others],
    color="#2f6fab",
    label="today's list",
)
axes.scatter(
    [winner.resources["shared_bytes"] / 1024],
    [winner.metrics["occupancy"]],
    color="#b42318",
    marker="D",
    label="the shipped winner",
)
axes.set_xlabel("shared memory of a block, KiB (compiled)")
axes.set_ylabel("occupancy")
axes.set_ylim(0, 1)
axes.legend(frameon=False)
axes.set_title("The winner stands where no configuration of today's list does", loc="left")
figure.tight_layout()

# %% [markdown]
# ## Two of them, instruction by instruction
#
# The winner and the configuration of the list with the same tile that asks for a pipeline. Static
# counts by class of opcode; the classes add up to the last row, exactly.

# %%
same_tile = [k for k in others if k.facts["config"].split()[0] == winner_name.split()[0]]
candidate = max(same_tile, key=lambda k: k.count("LDGSTS"))
path = folder / "none"
difference = diff_compiled(
    winner, candidate, summarise_compiled(winner, path), summarise_compiled(candidate, path)
)
print(compiled_difference(difference).text())
assert difference.residual == 0 and sum(row.delta for row in difference.rows) == difference.delta

# %%
classes = sorted(
    {name for k in (winner, candidate) for name in k.by_class()},
    key=lambda name: -max(k.by_class().get(name, 0) for k in (winner, candidate)),
)[:10]
figure, axes = plt.subplots(figsize=(8, 3))
for shift, kernel, colour in ((-0.2, winner, "#b42318"), (0.2, candidate, "#2f6fab")):
    axes.barh(
        [n + shift for n in range(len(classes))],
        [kernel.by_class().get(name, 0) for name in classes],
        0.38,
        color=colour,
        label=kernel.facts["config"],
    )
axes.set_yticks(range(len(classes)), classes)
axes.invert_yaxis()
axes.set_xlabel("instructions (static)")
axes.legend(frameon=False)
axes.set_title("What one tile size becomes, with and without a pipeline", loc="left")
figure.tight_layout()

# %% [markdown]
# ## Conclusion

# %%
single = sum(k.metrics["blocks_per_sm"] == 1 for k in others)
print(
    f"winner: {winner.metrics['blocks_per_sm']} blocks per SM, "
    f"{winner.count('LDGSTS')} asynchronous copies"
)
print(
    f"others: {single} of {len(others)} run one block per SM; "
    f"{sum(k.count('LDGSTS') > 0 for k in others)} copy asynchronously"
)

# %% [markdown]
# The configuration that won is of another kind than those that would be tried today: many small
# blocks that hide latency by being many, against one large block per SM that hides it with a
# software pipeline. Whether that still wins with today's compiler is a *measurement*, and it is not
# in this repository yet: [the worklog](../problems/gemlite_autotune/WORKLOG.md) says with which
# numbers it would be refuted.
#
# **Try it:** set `gpu = "h200-sxm"` and `batch = "m1"`, then `"m128"`. Which kernels hold no
# block on an SM, and which resource do they ask too much of?
