"""What does the compiler make of the Triton kernels, without a GPU? Resources per architecture.

    python -m fused_float8.aot          (needs Triton, no GPU; the whole line, with PYTHONPATH:
                                        WORKLOG.md, "Reproduce each number")

Compiles the GEMV and the GEMM of every batch size for compute capability 8.9, 9.0 and 12.0, and
prints registers, shared memory, bytes spilled to local memory and the widest load of the weights.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from . import triton_kernels as kernels
from .triton_linear import blocks_for

CAPABILITIES = (89, 90, 120)
BATCHES = (1, 16, 32, 64)


@dataclass(frozen=True)
class Resources:
    """One kernel for one architecture. `wide_loads` counts 16-byte global loads in its SASS."""

    kernel: str
    batch: int
    capability: int
    registers: int
    shared_bytes: int
    local_bytes: int  # spills and stack
    wide_loads: int
    narrow_loads: int  # 1- and 2-byte global loads
    float8_conversions: int
    tensor_core_instructions: int


def compile_for(batch: int, capability: int) -> Any:
    blocks = blocks_for(batch)
    sizes: dict[str, Any] = {"BLOCK_N": blocks.block_n, "BLOCK_K": blocks.block_k}
    constants = {"PER_ROW": True, "WHOLE": True, **sizes}
    signature = {"x_ptr": "*bf16", "w_ptr": "*fp8e4nv", "scale_ptr": "*fp32", "y_ptr": "*bf16"}
    function: Any = kernels.gemv
    if blocks.block_m:
        function = kernels.gemm
        constants |= {"DOT_IN_FLOAT32": False, "BLOCK_M": blocks.block_m}
        signature |= {"batch": "i32"}
    signature |= {"rows": "i32", "columns": "i32"} | dict.fromkeys(constants, "constexpr")
    names = list(function.arg_names)
    # Pointers and sizes that are multiples of 16, as Triton's launcher finds them; not the batch.
    aligned = [i for i, n in enumerate(names) if n not in constants and n != "batch"]
    source = ASTSource(
        fn=function,
        signature={name: signature[name] for name in names},
        constexprs=constants,
        attrs={(i,): [["tt.divisibility", 16]] for i in aligned},
    )
    options = {"num_warps": blocks.warps, "num_stages": blocks.stages}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def disassemble(cubin: bytes, *options: str) -> str:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run(
            [str(tool), *options, file.name], check=True, capture_output=True, text=True
        )
    return done.stdout


def resources(batch: int, capability: int) -> Resources:
    compiled = compile_for(batch, capability)
    cubin = compiled.asm["cubin"]
    usage = dict(re.findall(r"([A-Z]+)(?:\[0\])?:(\d+)", disassemble(cubin, "-res-usage")))
    sass = disassemble(cubin, "-sass")
    loads = re.findall(r"\b(?:LDG|LDGSTS)\.E[A-Z0-9_.]*", sass)
    return Resources(
        kernel="gemv" if batch == 1 else "gemm",
        batch=batch,
        capability=capability,
        registers=int(usage["REG"]),
        shared_bytes=int(compiled.metadata.shared),
        local_bytes=int(usage.get("LOCAL", 0)) + int(usage.get("STACK", 0)),
        wide_loads=sum(".128" in load for load in loads),
        narrow_loads=sum(bool(re.search(r"\.[US](?:8|16)\b", load)) for load in loads),
        float8_conversions=len(re.findall(r"F2FP\.\S*E4M3", sass)),
        tensor_core_instructions=len(re.findall(r"\b(?:HMMA|HGMMA|QMMA|UTCHMMA)\.", sass)),
    )


def main() -> None:
    print("| kernel | M up to | sm | registers | shared | local | 16 B | <= 2 B | E4M3 | MMA |")
    print("|---|" + "--:|" * 9)
    for batch in BATCHES:
        for capability in CAPABILITIES:
            r = resources(batch, capability)
            values = (r.kernel, r.batch, r.capability, r.registers, r.shared_bytes, r.local_bytes)
            counts = (r.wide_loads, r.narrow_loads, r.float8_conversions)
            row = (*values, *counts, r.tensor_core_instructions)
            print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    main()
