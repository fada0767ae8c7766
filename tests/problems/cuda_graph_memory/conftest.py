"""The pinned Triton, found as a run finds it: in the variants' own folders."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from common.contract.problem import load_problem
from common.experiments.request import package_folders


@pytest.fixture(scope="session")
def triton() -> list[Path]:
    """Its folder, importable here."""
    problem = load_problem("cuda_graph_memory")
    folders = package_folders(problem.variants[problem.baseline])
    sys.path.extend(str(folder) for folder in folders if str(folder) not in sys.path)
    return folders
