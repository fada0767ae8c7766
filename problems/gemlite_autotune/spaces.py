"""What does GemLite's autotuner choose from? The lists in its source, read without importing it.

Each kernel module builds its lists in three small functions of constants. They are run here alone,
with a recorder in place of `triton.Config`: no torch, no Triton, no device.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any

from common.errors import UsageError
from problems.gemlite_autotune.layers import BLOCK_SCALE
from problems.gemlite_autotune.shipped_tables import (
    Config,
    check_versions,
    package_folder,
    parse_config,
)

MODULES = {
    "GEMV": "gemv_kernels",
    "GEMV_REVSPLITK": "gemv_revsplitK_kernels",
    "GEMV_SPLITK": "gemv_splitK_kernels",
    "GEMM_SPLITK": "gemm_splitK_kernels",
    "GEMM": "gemm_kernels",
}
FUNCTIONS = {
    "fast": "get_fast_autotune_config_nvidia",
    "max": "get_max_autotune_config_nvidia",
    "default": "get_default_config_nvidia",
}


def _record(values: Mapping[str, Any], num_warps: int = 4, num_stages: int = 3) -> Config:
    return parse_config({**values, "num_warps": num_warps, "num_stages": num_stages})


@cache
def raw_space(family: str, mode: str) -> tuple[Config, ...]:
    """The configurations listed for NVIDIA GPUs before any pruning, in GemLite's order.

    `mode` is what `set_autotune` takes: fast (the default), max or default.
    """
    if family not in MODULES or mode not in FUNCTIONS:
        raise UsageError(
            f"no space {mode!r} of {family!r}; choose {', '.join(FUNCTIONS)} of "
            f"{', '.join(MODULES)}"
        )
    check_versions(("gemlite",))
    path = package_folder("gemlite") / "triton_kernels" / f"{MODULES[family]}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    name = FUNCTIONS[mode]
    wanted: list[ast.stmt] = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name
    ]
    if not wanted:
        raise UsageError(f"{path.name} has no {name}; install the pinned GemLite")
    # What the function refers to: the recorder and one constant.
    scope: dict[str, Any] = {
        "triton": SimpleNamespace(Config=_record),
        "BLOCK_QUANT_SIZE": BLOCK_SCALE,
    }
    exec(compile(ast.Module(wanted[-1:], []), str(path), "exec"), scope)
    return tuple(scope[name]())
