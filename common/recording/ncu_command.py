"""How is Nsight Compute called? Pure functions from what is wanted to command lines.

Only kernels launched inside the range of interest, only those that match, only so many launches:
each is replayed many times. Clocks are left alone, so that durations stay those of production;
the mode of replay and the caches' treatment are stated, never left to a version's default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.contract.capture import Capture
from common.recording.ranges import DOMAIN
from common.recording.tool_help import CommandLine, Option, ToolHelp, fit


@dataclass(frozen=True)
class NcuPlan:
    program: tuple[str, ...]
    capture: Capture
    output: Path
    clock_control: str = "none"
    graph_profiling: str = "node"

    @property
    def report(self) -> Path:
        return self.output.with_name(self.output.name + ".ncu-rep")

    @property
    def csv(self) -> Path:
        return self.output.with_name(self.output.name + ".csv")


def ncu_options(plan: NcuPlan) -> Sequence[Option]:
    capture = plan.capture
    options = [
        Option("--set", capture.ncu_set),
        Option("--nvtx"),
        # The trailing slash: a push/pop range, whatever is nested inside it.
        Option("--nvtx-include", f"{DOMAIN}@{capture.nvtx_range}/"),
        Option("--launch-skip", str(capture.ncu_launch_skip)),
        Option("--launch-count", str(capture.ncu_launch_count)),
        Option("--replay-mode", capture.ncu_replay, listed=True),
        Option("--graph-profiling", plan.graph_profiling, listed=True),
        Option("--clock-control", plan.clock_control, listed=True),
        # Flushed before each replay: every pass starts from the same caches.
        Option("--cache-control", "all", listed=True),
        Option("--target-processes", "application-only", listed=True),
        Option("--force-overwrite"),
        Option("--export", str(plan.output)),
    ]
    if capture.ncu_kernels:
        options.insert(3, Option("--kernel-name", capture.ncu_kernels))
    return options


def ncu_command(plan: NcuPlan, known: ToolHelp | None, tool: str = "ncu") -> CommandLine:
    """`ncu … PROGRAM`; options that `known` does not list are left out and named."""
    kept, left_out = fit(ncu_options(plan), known)
    # ncu takes values as words of their own; only long options with `=` would also do.
    words = [word for option in kept for word in option.split("=", 1)]
    return CommandLine((tool, *words, *plan.program), tuple(left_out))


def ncu_csv_command(plan: NcuPlan, tool: str = "ncu") -> CommandLine:
    """The recorded metrics as a table; its output is the file."""
    return CommandLine((tool, "--import", str(plan.report), "--csv", "--page", "raw"))
