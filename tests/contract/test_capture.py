"""Is the aim of the profilers read from problem.toml, and a wrong one refused?"""

from __future__ import annotations

from pathlib import Path

import pytest

from common.contract.capture import Capture, read_capture
from common.contract.problem import load_problem, problem_names, read_problem
from common.errors import UsageError

CHECKOUT = Path(__file__).parents[2]


def test_every_problem_here_says_what_to_capture_and_its_repro_opens_that_range(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORKLOG_ROOT", str(CHECKOUT))
    for name in problem_names():
        problem = load_problem(name)
        assert problem.capture is not None, name
        constant = problem.capture.nvtx_range.upper().replace(" ", "_").replace("-", "_")
        script = problem.repro.read_text()
        assert f'"{problem.capture.nvtx_range}"' in script or f"ranges.{constant})" in script


def test_what_is_not_said_has_a_default_and_no_table_is_no_capture() -> None:
    assert read_capture({"capture": {"nvtx_range": "decode"}}) == Capture("decode")
    assert read_capture({}) is None


@pytest.mark.parametrize(
    "line",
    [
        'nvtx_range = ""', 'nvtx_range = "a/b"', 'nvtx_range = "decode"\nncu_launch_count = 0',
        'nvtx_range = "decode"\nncu_launch_skip = -1', 'ncu_kernels = "x"',
        'nvtx_range = "decode"\nncu_replay = "twice"', 'nvtx_range = "decode"\ncolour = "red"',
    ],
)  # fmt: skip
def test_a_wrong_table_is_refused_with_the_files_name(tmp_path: Path, line: str) -> None:
    real = CHECKOUT / "problems" / "float8_weight_only"
    text = (real / "problem.toml").read_text()
    head, tail = text.split("[capture]")[0], text.split("[evidence]")[1]
    path = tmp_path / "problem.toml"
    path.write_text(f"{head}[capture]\n{line}\n[evidence]{tail}")
    (tmp_path / "predictions.toml").write_bytes((real / "predictions.toml").read_bytes())
    with pytest.raises(UsageError, match="problem.toml: "):
        read_problem(path)
