"""The pinned GemLite and Triton, found as a run finds them: in the variants' own folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from common.contract.problem import load_problem
from common.experiments.request import package_folders


@pytest.fixture(scope="session")
def packages() -> list[Path]:
    """Their folders."""
    problem = load_problem("gemlite_autotune")
    return package_folders(problem.variants[problem.baseline])


@pytest.fixture(scope="module", autouse=True)
def found(packages: list[Path]) -> Iterator[None]:
    """Found here, and by no other module's tests; importing them is for other processes."""
    with mock.patch.object(sys, "path", [*sys.path, *map(str, packages)]):
        yield


@pytest.fixture(scope="session")
def environment(packages: list[Path]) -> dict[str, str]:
    """For a process that does import them."""
    root = Path(__file__).resolve().parents[3]
    path = os.pathsep.join(map(str, [root, *packages]))
    return {**os.environ, "PYTHONPATH": path}


# Importing torch, Triton and GemLite takes seconds, and a process serves one GPU: each GPU's
# questions are asked in one process.
RTX_4090 = """
import json
from problems.gemlite_autotune import compare_routes, routes
found = {"routes": compare_routes.compare(600, 7, "rtx-4090")}
routes.GEMM_FROM = 65
found["wrong_rule"] = compare_routes.compare(300, 7, "rtx-4090")
print(json.dumps(found))
"""
H200 = """
import json
from problems.gemlite_autotune import compare_routes
from problems.gemlite_autotune.described_device import described
from problems.gemlite_autotune.devices import describe
from problems.gemlite_autotune.layers import Layer
found = {"routes": compare_routes.compare(100, 7, "h200-sxm")}
with described(describe("h200-sxm")):
    from problems.gemlite_autotune.gemlite_layers import gemlite_layer
    from problems.gemlite_autotune.gpu_route import record_tuning
    from problems.gemlite_autotune.launches import intercept, use_tables
    from gemlite import core
    layer = Layer(4096, 4096, "a8w8-int8")
    use_tables(False)
    found["contiguous"] = [gemlite_layer(layer).data_contiguous,
                           bool(intercept(layer, 128).keywords["data_contiguous"])]
    found["restore"] = {k.matmul_type: [list(f.restore_value) for f in k.kernel]
                        for k in core.GEMLITE_TRITON_KERNELS}
    try:
        found["timed"] = record_tuning(Layer(256, 256, "a16w4", 128), [8], ["fast"], "cpu")
    except Exception as error:
        found["timed"] = f"{type(error).__name__}: {error}"
    use_tables(False, "default")
    found["default_list"] = [len(f.configs) for f in
                             core.GEMLITE_TRITON_MAPPING["GEMV_REVSPLITK"].kernel]
print(json.dumps(found))
"""


def _asked(code: str, environment: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="session")
def rtx_4090(environment: dict[str, str]) -> dict[str, Any]:
    return _asked(RTX_4090, environment)


@pytest.fixture(scope="session")
def h200(environment: dict[str, str]) -> dict[str, Any]:
    return _asked(H200, environment)
