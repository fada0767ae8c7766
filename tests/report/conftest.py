"""One browser for all tests of pages, and the pages that several of them look at."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.chromium import NOT_HERE, Page, chromium, program

from common.report.html import write_report

RUN_TINY = Path(__file__).parents[1] / "data" / "run_tiny"


@pytest.fixture(scope="session")
def page() -> Iterator[Page]:
    if program() is None:
        pytest.skip(NOT_HERE)
    with chromium() as browser:
        yield browser.page()


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("report")
    shutil.copytree(RUN_TINY, place / "run")
    return write_report([place / "run"], place / "report.html")
