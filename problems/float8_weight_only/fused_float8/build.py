"""Where do the CPU kernels come from? Compiled once per source, torch and compiler, then loaded.

The shared object lies in `.cache/extensions` (or under WORKLOG_CACHE). It is compiled in a folder
of its own and moved into place whole, so that several processes, or one that is killed, leave
nothing half done and no lock. Where it cannot be compiled, the operators compute with torch
instead, and `unavailable` says why in one line.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

from common.contract.problem import root
from common.recording.environment import compiler_version, package_version

SOURCES = (
    "cpu_kernels.cpp",
    "cpu_body.h",
    "cpu_floats.h",
    "cpu_pairs.h",
    "cpu_vectors.h",
    "work_sharing.h",
)
# at::parallel_for is a header: without OpenMP it would run on one thread and say nothing.
FLAGS = ("-O3", "-std=c++20", "-fno-math-errno", "-fopenmp")
NAME = "float8_weight_only_cpu"


def library_path() -> Path:
    """Where the shared object of exactly these sources, this torch and this compiler lies."""
    base = Path(os.environ.get("WORKLOG_CACHE") or root() / ".cache")
    parts = [str(package_version("torch")), platform.machine(), str(compiler_version()), *FLAGS]
    digest = hashlib.sha256("\0".join(parts).encode())
    for source in SOURCES:
        digest.update((Path(__file__).parent / source).read_bytes())
    return base / "extensions" / f"{NAME}-{digest.hexdigest()[:16]}" / f"{NAME}.so"


@cache
def unavailable() -> str | None:
    """Load the compiled kernels, building them if needed; None, or why torch computes instead."""
    if os.environ.get("FLOAT8_KERNELS") == "torch":
        return "FLOAT8_KERNELS=torch asks for torch; unset it for the compiled kernels"
    target = library_path()
    try:
        if not target.is_file():
            if compiler_version() is None:
                return (
                    "the float8 CPU kernels need a C++ compiler and there is none; install one "
                    "(on Debian or Ubuntu: apt-get install g++)"
                )
            print("building the float8 CPU kernels (once)", file=sys.stderr, flush=True)
            _build(target)  # which loads them, too
        else:
            ops: Any = torch.ops  # its methods are untyped
            ops.load_library(str(target))
    except (OSError, RuntimeError, ImportError, subprocess.SubprocessError) as error:
        last = (str(error).strip().splitlines() or ["no message"])[-1][:200]
        return f"the float8 CPU kernels cannot be built or loaded ({last}); mend the compiler"
    return None


def _build(target: Path) -> None:
    from torch.utils import cpp_extension

    target.parent.mkdir(parents=True, exist_ok=True)
    # ninja, which torch calls, is installed beside this Python; its folder need not be on the path.
    path = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), path])
    folder = Path(tempfile.mkdtemp(dir=target.parent))
    try:
        cpp_extension.load(
            NAME,
            [str(Path(__file__).with_name(SOURCES[0]))],
            extra_cflags=list(FLAGS),
            extra_ldflags=["-fopenmp"],
            build_directory=str(folder),
            is_python_module=False,
            is_standalone=False,
        )
        os.replace(folder / target.name, target)
    finally:
        os.environ["PATH"] = path
        shutil.rmtree(folder, ignore_errors=True)
