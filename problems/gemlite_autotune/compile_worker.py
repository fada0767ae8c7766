"""Compile GemLite's own kernels: what a compiler of `compile_server` does.

The configuration is put into GemLite's own table of winners and GemLite's own forward is called
for a layer of the wanted shape: kernel, arguments, specialisation and heuristics are what a GPU
would be given. Only the launch itself is replaced, by a compilation. Nothing is run.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from common.traces.compiled_kernel import CompiledKernel
from common.traces.sass import Instruction, largest_loop, opcode_counts
from problems.gemlite_autotune.devices import describe
from problems.gemlite_autotune.disassembly import disassemble, program_of, resources_of
from problems.gemlite_autotune.jobs import Job, gpu_of, parse_job
from problems.gemlite_autotune.shipped_tables import PINNED, Config
from problems.gemlite_autotune.static_metrics import metrics


@dataclass(frozen=True)
class Binary:
    """What Triton made of one job."""

    job: Job
    name: str
    cubin: bytes
    warps: int
    dynamic_shared_bytes: int
    grid: tuple[int, ...]
    output_bytes: int  # of one element
    wall_seconds: float
    cpu_seconds: float


def preload() -> None:
    """Everything that is the same for every GPU."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    # GemLite decorates functions with torch.compile, which imports half of torch.
    import torch
    import torch._dynamo
    import triton.language
    from triton.runtime import cache

    torch.set_num_threads(1)
    # The name of an entry in a cache that is thrown away: Triton would hash 500 MB of itself for it
    # in each process.
    cache.triton_key = lambda: PINNED["triton"]
    assert triton.language is not None


@contextlib.contextmanager
def for_gpu(gpu: str) -> Iterator[None]:
    """GemLite imported under the description of one GPU."""
    from problems.gemlite_autotune.described_device import described

    with described(describe(gpu)):
        from gemlite import core

        assert core is not None
        yield


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


def compile_job(job: Job) -> Binary:
    """GemLite's forward for one job, compiled instead of launched. Use inside `for_gpu`."""
    from gemlite import core
    from triton.runtime.jit import JITFunction

    from problems.gemlite_autotune.gemlite_layers import batch, gemlite_layer
    from problems.gemlite_autotune.launches import give_gemv_its_table, replaced, stand_ins

    compiled: list[tuple[Any, Any, dict[str, Any], int]] = []
    original = JITFunction.run

    def compile_only(self: Any, *arguments: Any, grid: Any, warmup: bool, **keywords: Any) -> None:
        kernel = original(self, *arguments, grid=grid, warmup=True, **keywords)
        compiled.append((kernel, grid, keywords, arguments[2].dtype.itemsize))

    wall, cpu = time.perf_counter(), cpu_seconds()
    table = {str(job.layer.key(job.m)): gemlite_values(job.config)}
    core.GEMLITE_TRITON_CONFIG_CACHE.clear()
    core.GEMLITE_TRITON_CONFIG_CACHE[job.family] = table
    for kernels in core.GEMLITE_TRITON_KERNELS:
        for kernel in kernels.kernel:
            kernel.cache.clear()
    give_gemv_its_table()
    made, x = gemlite_layer(job.layer), batch(job.layer, job.m)
    with replaced(core, stand_ins()), replaced(JITFunction, {"run": compile_only}):
        made.forward_manual(x, job.family)
    ((kernel, grid, keywords, output_bytes),) = compiled
    return Binary(
        job,
        str(kernel.metadata.name),
        kernel.asm["cubin"],
        int(kernel.metadata.num_warps),
        int(kernel.metadata.shared),
        tuple(int(size) for size in grid(keywords)),
        output_bytes,
        time.perf_counter() - wall,
        cpu_seconds() - cpu,
    )


def documents(binaries: Sequence[Binary]) -> list[dict[str, Any]]:
    """One document per binary, all of one GPU: `worklog.compiled/1`, the job and the seconds."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    programs = [program_of(binary.cubin) for binary in binaries]
    distinct = {program: at for at, program in enumerate(dict.fromkeys(programs))}
    texts = disassemble(list(distinct), gpu_of(binaries[0].job).architecture)
    made = [
        _document(binary, texts[distinct[program]])
        for binary, program in zip(binaries, programs, strict=True)
    ]
    # Started once for all of them: each bears its share.
    wall, cpu = (
        (time.perf_counter() - wall) / len(binaries),
        (cpu_seconds() - cpu) / len(binaries),
    )
    for document, binary in zip(made, binaries, strict=True):
        document["seconds"] = {
            "compile": round(binary.wall_seconds, 3),
            "disassemble": round(wall, 3),
            "cpu": round(binary.cpu_seconds + cpu, 3),
        }
    return made


def _document(binary: Binary, instructions: tuple[Instruction, ...]) -> dict[str, Any]:
    job, said, gpu = binary.job, resources_of(binary.cubin), gpu_of(binary.job)
    counts = opcode_counts(instructions)
    resources = {
        "registers": said.registers,
        "stack_bytes": said.stack_bytes,
        "shared_bytes": binary.dynamic_shared_bytes + said.static_shared_bytes,
        "threads": 32 * binary.warps,
    }
    found = metrics(
        gpu, job.family, job.layer, job.m, job.config, binary.grid, resources, counts,
        binary.output_bytes,
    )  # fmt: skip
    document = CompiledKernel(
        kernel=binary.name,
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
            "grid": list(binary.grid),
            "output_bytes_per_element": binary.output_bytes,
            # Equal for two configurations that give the same program.
            "program_sha256": program_hash(instructions),
        },
        metrics=found,
    ).to_json()
    return {**document, "job": job.to_json()}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """{"jobs": […]} -> {"answers": [{"compiled": document} or {"failed": why}, …]}, in order."""
    with tempfile.TemporaryDirectory(prefix="compile-") as scratch:
        # Triton's own cache would keep every stage, and make a cold time a warm one.
        os.environ["TRITON_CACHE_DIR"] = scratch
        done: list[Binary | str] = []
        for job in map(parse_job, request["jobs"]):
            try:
                done.append(compile_job(job))
            except Exception as error:  # whatever a compiler says of one configuration
                text = f"{type(error).__name__}: {error}".strip().splitlines()
                done.append(" | ".join(text)[:500])
    made = iter(_read([each for each in done if isinstance(each, Binary)]))
    return {
        "answers": [next(made) if isinstance(each, Binary) else {"failed": each} for each in done]
    }


def _read(binaries: Sequence[Binary]) -> list[dict[str, Any]]:
    """The documents; where one binary spoils the lot, each by itself."""
    if not binaries:
        return []
    try:
        return [{"compiled": document} for document in documents(binaries)]
    except Exception as error:
        if len(binaries) > 1:
            return [answer for binary in binaries for answer in _read([binary])]
        return [{"failed": f"{type(error).__name__}: {error}".splitlines()[0][:500]}]
