"""A process with the pinned Triton, as a run has one: found in the variants' own folders."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from unittest import mock

import pytest

from common.contract.problem import load_problem
from common.experiments.request import package_folders


@pytest.fixture(scope="session")
def triton() -> list[Path]:
    """Its folder."""
    problem = load_problem("cuda_graph_memory")
    return package_folders(problem.variants[problem.baseline])


@pytest.fixture(scope="module")
def with_triton(triton: list[Path]) -> Iterator[ProcessPoolExecutor]:
    """Inductor looks for Triton once in a process: an earlier test may have let it look in vain."""
    path = [*sys.path, *(str(folder) for folder in triton)]
    with (
        mock.patch.dict(os.environ, {"PYTHONDONTWRITEBYTECODE": "1"}),
        mock.patch.object(sys, "path", path),  # the new process is given it
        ProcessPoolExecutor(1, get_context("spawn")) as process,
    ):
        yield process
