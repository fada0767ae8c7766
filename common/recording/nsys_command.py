"""How is Nsight Systems called? Pure functions from what is wanted to command lines.

Two modes on a GPU, in separate runs, because nsys shows a CUDA graph either as one launch (`graph`:
true durations, nothing about the kernels inside) or as its nodes (`node`: every kernel, at the
price of overhead). Without a GPU there is one mode, `ranges`: NVTX alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.recording.ranges import DOMAIN
from common.recording.tool_help import CommandLine, Option, ToolHelp, fit

MODES = {"cuda": ("graph", "node"), "cpu": ("ranges",)}


@dataclass(frozen=True)
class NsysPlan:
    """One capture: of which program, which range of it, in which mode, to `output` + suffix."""

    program: tuple[str, ...]
    nvtx_range: str
    mode: str  # graph, node or ranges
    output: Path

    @property
    def report(self) -> Path:
        return self.output.with_name(self.output.name + ".nsys-rep")

    @property
    def sqlite(self) -> Path:
        return self.output.with_name(self.output.name + ".sqlite")


def nsys_options(plan: NsysPlan) -> Sequence[Option]:
    gpu = plan.mode != "ranges"
    options = [
        Option("--trace", "cuda,nvtx" if gpu else "nvtx", listed=True),
        # Neither is needed to time kernels and ranges, and both want privileges.
        Option("--sample", "none", listed=True),
        Option("--cpuctxsw", "none", listed=True),
        # From the first opening of the range, which is after all warm-up, to its end.
        Option("--capture-range", "nvtx", listed=True),
        Option("--nvtx-capture", f"{plan.nvtx_range}@{DOMAIN}"),
        # `stop` and not the default: the program goes on to its own end.
        Option("--capture-range-end", "stop", listed=True),
        # Inductor's compile workers may outlive the program; nobody waits for them.
        Option("--wait", "primary", listed=True),
    ]
    if gpu:
        options += [
            Option("--cuda-graph-trace", plan.mode, listed=True),
            Option("--cuda-memory-usage", "true" if plan.mode == "node" else "false"),
        ]
    return [
        *options,
        Option("--force-overwrite", "true"),
        Option("--export", "sqlite"),
        Option("--output", str(plan.output)),
    ]


def nsys_command(plan: NsysPlan, known: ToolHelp | None, tool: str = "nsys") -> CommandLine:
    """`nsys profile … PROGRAM`; options that `known` does not list are left out and named."""
    kept, left_out = fit(nsys_options(plan), known)
    return CommandLine((tool, "profile", *kept, *plan.program), tuple(left_out))


def nsys_export_command(plan: NsysPlan, tool: str = "nsys") -> CommandLine:
    """For versions that do not export while they profile."""
    return CommandLine(
        (tool, "export", "--type=sqlite", "--force-overwrite=true",
         f"--output={plan.sqlite}", str(plan.report))
    )  # fmt: skip
