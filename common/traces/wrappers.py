"""Which spans only enclose others? Compiled regions, calls into graphs, annotations, steps."""

from __future__ import annotations

WRAPPER_PREFIXES = (
    "Torch-Compiled Region",
    "## Call CompiledFxGraph",
    "CompiledFunction",
    "CompiledFxGraph",
    "Inductor:",
    "Pregraph bytecode",
    "AOTDispatcher Runtime Wrapper",
    "CUDAGraphNode",
    "ProfilerStep",
    "PyTorch Profiler",
)


def is_wrapper(name: str) -> bool:
    return name.startswith(WRAPPER_PREFIXES)
