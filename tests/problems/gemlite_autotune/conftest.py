"""The pinned GemLite and Triton, found as a run finds them: in the variants' own folders."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from common.contract.problem import load_problem
from common.experiments.request import package_folders


@pytest.fixture(scope="session", autouse=True)
def packages() -> list[Path]:
    """Their folders, importable here. Nothing here imports them: that is for other processes."""
    problem = load_problem("gemlite_autotune")
    folders = package_folders(problem.variants[problem.baseline])
    sys.path.extend(str(folder) for folder in folders if str(folder) not in sys.path)
    return folders


@pytest.fixture(scope="session")
def environment(packages: list[Path]) -> dict[str, str]:
    """For a process that does import them."""
    root = Path(__file__).resolve().parents[3]
    path = os.pathsep.join(map(str, [root, *packages]))
    return {**os.environ, "PYTHONPATH": path}
