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
# # Reading and diffing traces
#
# **Question.** One recording is slower than another. Which operator accounts for the difference, is
# it more calls or longer calls, and how sure may we be?
#
# The recordings are small ones of our own (a toy Llama on a busy 2-core CPU: the structure is real,
# the times are noise). Put the names of your own files into the next cell: any two that
# `worklog diff` takes, which are torch.profiler traces, Nsight Systems exports, Nsight Compute
# reports, CUDA memory snapshots, or `RUN#VARIANT` of a run folder.

# %% tags=["parameters"]
before = "tests/data/run_tiny#bf16"
after = "tests/data/run_tiny#float8wo-0.13.0"
rows_by = "operator"  # kernel, operator, module, range or gap; pool, size or stack for memory

# %%
import os

import matplotlib.pyplot as plt

from common.contract.problem import root
from common.diff.attribution import memory_timeline, time_in_range
from common.diff.diff import compare_files
from common.diff.sides import open_side
from common.report.diff_text import difference_text
from common.report.diff_waterfall import steps
from common.report.svg import short
from common.report.tables import Table, milliseconds, percent

os.chdir(root())
plt.rcParams.update({"figure.dpi": 72, "font.size": 9, "axes.spines.top": False,
                     "axes.spines.right": False})  # fmt: skip

# %% [markdown]
# ## One file
#
# A trace is three tables: work on GPUs, spans on the host, allocator events. Times are integers of
# nanoseconds from the file to the page.

# %%
side = open_side(after)
summary = side.summary
print(
    f"{summary['format']}: {summary.get('events') or 0:,} events, "
    f"{summary.get('kernels') or 0:,} kernels, {len(summary['warnings'])} warnings"
)
if side.kind in ("trace", "run"):
    trace = side.trace
    print(
        f"{len(trace.host):,} spans on {len(trace.threads)} threads, "
        f"{len(trace.allocations):,} allocator events"
    )

# %% [markdown]
# ## Charged to whom?
#
# Operators nest. Time is charged to the *outermost* operator that does work itself (no compiled
# region, no profiler step, no Python frame), so that rows are disjoint and add up. Within the range
# `decode`:

# %%
found = time_in_range(trace, "decode") if side.kind in ("trace", "run") else None
if found is not None:
    rows = [
        (
            row.name,
            f"{row.count:,}",
            milliseconds(row.time_ns),
            percent(row.time_ns / found.total_ns),
        )
        for row in found.rows[:6]
    ]
    rest = sum(row.time_ns for row in found.rows[6:])
    rows.append(("all other operators", "", milliseconds(rest), percent(rest / found.total_ns)))
    rows.append(
        (
            "outside any operator",
            "",
            milliseconds(found.outside_ns),
            percent(found.outside_ns / found.total_ns),
        )
    )
    print(Table(("operator", "calls", "ms", "share"), tuple(rows), ("calls", "ms", "share")).text())
    assert sum(row.time_ns for row in found.rows) + found.outside_ns == found.total_ns

# %% [markdown]
# ## Two files
#
# The same page that `worklog diff A B --by operator` prints. Its last line is the law that every
# diff here keeps: rows plus remainders equal the difference, to the nanosecond.

# %%
difference = compare_files(before, after, rows_by)
print(difference_text(difference, top=6, width=96, colour=False))
assert difference.residual == 0

# %% [markdown]
# As a waterfall: every bar begins where the one above ends, and the last one ends at B.

# %%
parts = steps(difference, sorted(difference.rows, key=lambda row: -abs(row.delta)), most=8)
unit = 1e6 if difference.quantity.endswith("_ns") else 2**20
figure, axes = plt.subplots(figsize=(8, 3.6))
names = ["A", *(part.label for part in parts), "B"]
axes.barh(0, difference.total_a / unit, color="#6a747e")
for place, part in enumerate(parts, 1):
    axes.barh(
        place,
        part.delta / unit,
        left=part.start / unit,
        color="#b42318" if part.delta > 0 else "#1a6b3c",
    )
axes.barh(len(names) - 1, difference.total_b / unit, color="#6a747e")
axes.set_yticks(range(len(names)), [short(name, 44) for name in names])
axes.invert_yaxis()
axes.set_xlabel("ms" if unit == 1e6 else "MiB")
axes.set_title(f"One row makes nearly all of {difference.quantity}", loc="left")
figure.tight_layout()

# %% [markdown]
# ## More calls, or longer ones?
#
# Each row splits: the count effect is what the change of the count alone would have made at A's
# mean duration, the duration effect is the rest. An operator that is only on one side has no
# duration to compare with: all of it is count.

# %%
largest = sorted(difference.rows, key=lambda row: -abs(row.delta))[:8]
table = Table(
    ("row", "count A", "count B", "count effect", "duration effect", "delta"),
    tuple(
        (
            row.name[:48],
            f"{row.count_a:,}",
            f"{row.count_b:,}",
            f"{row.count_effect:+,}",
            f"{row.duration_effect:+,}",
            f"{row.delta:+,}",
        )
        for row in largest
    ),
    ("count A", "count B", "count effect", "duration effect", "delta"),
)
print(table.text())
assert all(row.count_effect + row.duration_effect == row.delta for row in difference.rows)

# %% [markdown]
# ## And memory?
#
# The same traces carry every allocation. Live bytes over time; what matters is the height.

# %%
figure, axes = plt.subplots(figsize=(8, 2.4))
for label, text, colour in (("A", before, "#2f6fab"), ("B", after, "#b42318")):
    one = open_side(text)
    if one.kind not in ("trace", "run"):
        continue
    device = 0 if one.trace.has_gpu_events else -1
    line = memory_timeline(one.trace.allocations, device)
    if line:
        length = line[-1][0] or 1
        axes.step(
            [100 * when / length for when, _ in line],
            [live / 2**20 for _, live in line],
            where="post",
            color=colour,
            lw=1,
            label=label,
        )
        print(f"{label}: at most {max(live for _, live in line) / 2**20:.2f} MiB above the start")
axes.set_xlabel("% of the recorded time")
axes.set_ylabel("live MiB")
axes.legend(frameon=False)
axes.set_title("The slow side also holds more at once", loc="left")
figure.tight_layout()

# %% [markdown]
# ## Conclusion

# %%
top = largest[0]
verdict = difference.judgement
print(
    f"Largest row: {top.name}, {top.delta:+,} of {difference.delta:+,} "
    f"({100 * top.delta / difference.delta:.0f} %); it is {top.status}."
)
print(f"Verdict: {verdict.verdict}, confidence: {verdict.confidence}.")

# %% [markdown]
# An operator that is not there on the fast side makes most of the difference, and it is on the slow
# side once per linear layer: not a slower product, but work that need not be done. That is a place
# to look at the *source*, which [the worklog](../problems/float8_weight_only/WORKLOG.md) then does.
#
# What the trace alone could not give is the verdict: it was judged on interleaved samples taken
# without a profiler. For two bare files it would have said *single capture*, and that is the honest
# answer: two captures of equal code differ by up to 20 %.
#
# **Try it:** change `rows_by` to `"range"`, and swap the sides. Which figures change their sign,
# and which do not?
