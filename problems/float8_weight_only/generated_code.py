"""What does Inductor generate for one float8 linear, for a CPU and, without a GPU, for CUDA?

    python generated_code.py VERSION cpu|cuda    with that torchao, and Triton, on the path

The CPU's code is what `torch.compile` runs. For CUDA the same function (dequantise, then
`F.linear`) is traced with fake tensors and lowered by Inductor for a pretended device: the source
is what a GPU would get, but nothing is compiled or run, and the wrapper tensor class is left out.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from common.workloads.pretended_compiler import pretended_compiler

ROWS = COLUMNS = 2048
OPAQUE = "torchao.dequantize_affine_float8"


@dataclass(frozen=True)
class Reading:
    """One generated program, reduced to what moves bytes of the weight."""

    target: str
    torchao: str
    batch: int
    coordinate_descent: bool
    kernels: int  # generated ones
    extern: tuple[str, ...]  # calls of operators that are not generated, in order
    materialised: bool  # a bf16 tensor of the weight's size is written
    bytes_per_weight: int


def read_code(code: str, target: str) -> tuple[int, tuple[str, ...], bool, int]:
    """Kernels, extern calls, whether the weight is materialised, bytes per weight.

    An opaque dequantise moves 27 bytes (its four passes, `common.floors.traffic`), a generated one
    that writes bf16 moves 1 + 2; either is read again by the product, 2. Else the one kernel
    reads the weight as it is stored: 1.
    """
    body = code[code.index("def call(") if "def call(" in code else 0 :]
    calls = re.findall(r"(extern_kernels\.\w+|torch\.ops\.[\w.]+|aten\.\w+)(?:\.default)?\(", body)
    launched = re.findall(r"^\s+(triton_\w+)\.run\(|^\s+(?:\w+ = )?(cpp_fused\w+)\(", body, re.M)
    size = rf"empty_strided_{target}\(\(({ROWS}, {COLUMNS}|{COLUMNS}, {ROWS})\)"
    opaque = any(OPAQUE in call for call in calls)
    materialised = opaque or bool(re.search(size, body))
    moved = (27 if opaque else 3) + 2 if materialised else 1
    names = tuple(call.removeprefix("extern_kernels.") for call in calls)
    return len(launched), names, materialised, moved


def linear_of(dequantise: Any) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def linear(x: Tensor, values: Tensor, scale: Tensor) -> Tensor:
        return torch.nn.functional.linear(x, dequantise(values, scale, torch.bfloat16))

    return linear


def arguments(batch: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.empty(batch, COLUMNS, dtype=torch.bfloat16, device=device),
        torch.empty(ROWS, COLUMNS, dtype=torch.float8_e4m3fn, device=device),
        torch.empty(ROWS, 1, device=device),
    )


def cpu_code(function: Any, batch: int) -> str:
    from torch._inductor.utils import run_and_get_code

    torch.compiler.reset()
    values = [torch.zeros_like(each) for each in arguments(batch, "cpu")]
    with torch.no_grad():
        _, codes = run_and_get_code(torch.compile(function, fullgraph=True), *values)
    return str(codes[0])


def cuda_code(function: Any, batch: int) -> str:
    from torch._inductor.debug import DebugContext
    from torch._inductor.decomposition import select_decomp_table
    from torch._inductor.graph import GraphLowering
    from torch._inductor.virtualized import V
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    virtualized: Any = V
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake, torch.no_grad():
        given = arguments(batch, "cuda")
        table: Any = select_decomp_table()
        traced = make_fx(function, decomposition_table=table, tracing_mode="real")(*given)
    graph: Any = GraphLowering(traced)
    debug: Any = DebugContext
    with (
        virtualized.set_graph_handler(graph),
        virtualized.set_fake_mode(fake),
        virtualized.set_debug_handler(debug()),
        fake,
    ):
        graph.run(*given)
        code = graph.codegen()
    code = code[0] if isinstance(code, tuple) else code
    return str(getattr(code, "value", code))


def main() -> None:
    version, target = sys.argv[1:]
    from torch._inductor import config
    from torchao.quantization import quant_primitives

    function = linear_of(quant_primitives._dequantize_affine_float8)
    settings: Any = config
    readings = []
    on_gpu = target == "cuda"
    with pretended_compiler() if on_gpu else nullcontext():
        for batch, flag in product((1, 4), (True, False)):
            settings.coordinate_descent_tuning = flag
            code = cuda_code(function, batch) if on_gpu else cpu_code(function, batch)
            found = read_code(code, target)
            readings.append(asdict(Reading(target, version, batch, flag, *found)))
            print(f"{version} {target} M={batch} {flag}: {found}", file=sys.stderr, flush=True)
    print(json.dumps(readings))


if __name__ == "__main__":
    main()
