"""Compile GemLite's own kernels, one job per line of stdin, one answer per line of stdout.

    python -m problems.gemlite_autotune.compile_worker GPU

The configuration is put into GemLite's own table of winners and GemLite's own forward is called
for a layer of the wanted shape: kernel, arguments, specialisation and heuristics are what a GPU
would be given. Only the launch itself is replaced, by a compilation. Nothing is run.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common.timing.worker import die_with_parent
from common.traces.compiled_kernel import CompiledKernel
from common.traces.sass import (
    Instruction,
    largest_loop,
    opcode_counts,
    read_instructions,
    read_resources,
)
from problems.gemlite_autotune.described_device import described
from problems.gemlite_autotune.devices import describe
from problems.gemlite_autotune.jobs import Job, gpu_of, parse_job
from problems.gemlite_autotune.shipped_tables import Config, package_folder
from problems.gemlite_autotune.static_metrics import metrics

TOOL_SECONDS = 120


def gemlite_values(config: Config) -> dict[str, int]:
    """A configuration as a table of GemLite holds it."""
    found: dict[str, int | None] = {
        "BLOCK_SIZE_M": config.block_m,
        "BLOCK_SIZE_N": config.block_n,
        "BLOCK_SIZE_K": config.block_k,
        "GROUP_SIZE_M": config.group_m,
        "SPLIT_K": config.split_k,
        "A_load_order": config.a_order,
        "dot_prod_mode": config.dot_mode,
        "num_warps": config.warps,
        "num_stages": config.stages,
    }
    return {name: value for name, value in found.items() if value is not None}


def disassemble(cubin: bytes) -> str:
    """Resources and SASS of a binary, by the tool that Triton brings."""
    tool = package_folder("triton") / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run(
            [str(tool), "-res-usage", "-sass", file.name],
            check=True,
            capture_output=True,
            text=True,
            timeout=TOOL_SECONDS,
        )
    return done.stdout


def cpu_seconds() -> float:
    """CPU time of this process and of the tools that it has waited for."""
    own, tools = (
        resource.getrusage(resource.RUSAGE_SELF),
        resource.getrusage(resource.RUSAGE_CHILDREN),
    )
    return own.ru_utime + own.ru_stime + tools.ru_utime + tools.ru_stime


def program_hash(instructions: tuple[Instruction, ...]) -> str:
    """SHA-256 of opcodes and operands in order."""
    text = "\n".join(f"{each.opcode} {each.operands}" for each in instructions)
    return hashlib.sha256(text.encode()).hexdigest()


def compile_job(job: Job) -> dict[str, Any]:
    """The document of one compiled kernel. Use inside `described` of the job's GPU."""
    from gemlite import core
    from triton.runtime.jit import JITFunction

    from problems.gemlite_autotune.gemlite_layers import batch, gemlite_layer
    from problems.gemlite_autotune.launches import give_gemv_its_table, replaced, stand_ins

    compiled: list[tuple[Any, Any, dict[str, Any], int]] = []
    original = JITFunction.run

    def compile_only(self: Any, *arguments: Any, grid: Any, warmup: bool, **keywords: Any) -> None:
        kernel = original(self, *arguments, grid=grid, warmup=True, **keywords)
        compiled.append((kernel, grid, keywords, arguments[2].dtype.itemsize))

    table = {str(job.layer.key(job.m)): gemlite_values(job.config)}
    core.GEMLITE_TRITON_CONFIG_CACHE.clear()
    core.GEMLITE_TRITON_CONFIG_CACHE[job.family] = table
    for kernels in core.GEMLITE_TRITON_KERNELS:
        for kernel in kernels.kernel:
            kernel.cache.clear()
    give_gemv_its_table()
    made, x = gemlite_layer(job.layer), batch(job.layer, job.m)
    started, cpu = time.perf_counter(), cpu_seconds()
    with replaced(core, stand_ins()), replaced(JITFunction, {"run": compile_only}):
        made.forward_manual(x, job.family)
    seconds = time.perf_counter() - started
    ((kernel, grid, keywords, output_bytes),) = compiled
    started = time.perf_counter()
    text = disassemble(kernel.asm["cubin"])
    said = read_resources(text)
    if said is None:
        raise RuntimeError("cuobjdump named no resources")
    instructions = read_instructions(text)
    counts = opcode_counts(instructions)
    resources = {
        "registers": said.registers,
        "stack_bytes": said.stack_bytes,
        "shared_bytes": int(kernel.metadata.shared) + said.static_shared_bytes,
        "threads": 32 * int(kernel.metadata.num_warps),
    }
    blocks = tuple(int(size) for size in grid(keywords))
    gpu = gpu_of(job)
    found = metrics(
        gpu, job.family, job.layer, job.m, job.config, blocks, resources, counts, output_bytes
    )
    document = CompiledKernel(
        kernel=str(kernel.metadata.name),
        title=job.title,
        architecture=f"sm_{gpu.architecture}",
        resources=resources,
        instructions=counts,
        loop_instructions=largest_loop(instructions),
        facts={
            "gpu": gpu.id,
            "layer": str(job.layer),
            "m": job.m,
            "family": job.family,
            "config": str(job.config),
            "grid": list(blocks),
            "output_bytes_per_element": output_bytes,
            # Equal for two configurations that give the same program.
            "program_sha256": program_hash(instructions),
        },
        metrics=found,
    ).to_json()
    document["job"] = job.to_json()
    document["seconds"] = {
        "compile": round(seconds, 3),
        "disassemble": round(time.perf_counter() - started, 3),
        "cpu": round(cpu_seconds() - cpu, 3),
    }
    return document


def main() -> None:
    die_with_parent()
    # Triton's own cache would keep every stage of every kernel, and make a cold time a warm one.
    scratch = Path(tempfile.mkdtemp(prefix="compile-"))
    os.environ["TRITON_CACHE_DIR"] = str(scratch)
    # What libraries print must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        with described(describe(sys.argv[1])):
            import torch

            torch.set_num_threads(1)
            answers.write(json.dumps({"ready": True}) + "\n")
            answers.flush()
            for line in sys.stdin:
                try:
                    answer: dict[str, Any] = {"compiled": compile_job(parse_job(json.loads(line)))}
                except Exception as error:  # whatever a compiler says of one configuration
                    text = f"{type(error).__name__}: {error}".strip().splitlines()
                    answer = {"failed": " | ".join(text)[:500]}
                answers.write(json.dumps(answer) + "\n")
                answers.flush()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
