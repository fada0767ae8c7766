"""Does every command of the README do what it says? Quick ones run here, the others elsewhere.

A command that is neither run nor named in ELSEWHERE fails, so a new line in the README needs one.
"""

from __future__ import annotations

import glob
import re
import shlex
import shutil
from pathlib import Path

import pytest

from common.cli import main
from common.pages.check import check

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
WORKLOG = ".venv/bin/worklog "
# Slow, or needing a machine of their own: what runs the command itself.
ELSEWHERE = {
    "./run.sh": "tests/test_setup_environment.py",
    "./run.sh setup": "tests/test_setup_environment.py",
    "./test.sh": "test.sh",  # what runs these tests
    "docker build": "tests/docker/test_images.py",
    "problems/float8_weight_only/run.sh": "tests/docker/test_run_sh.py",
    WORKLOG + "run": "tests/problems/test_float8_weight_only.py",
    WORKLOG + "bench": "tests/experiments/test_bench.py",
    WORKLOG + "floors measure": "tests/floors/test_measure.py",
    WORKLOG + "replay": "tests/pages/test_replay.py",
    WORKLOG + "record": "tests/experiments/test_record.py",
    WORKLOG + "render": "tests/pages/test_pages.py",  # writes into the checkout
}
NAMED_THERE = {  # a word of that test's text that shows that it runs it
    "./run.sh": "setup_environment", "./run.sh setup": "setup_environment", "./test.sh": "pytest",
    "docker build": "build", "problems/float8_weight_only/run.sh": "run.sh",
    WORKLOG + "run": '"run"', WORKLOG + "bench": '"bench"',
    WORKLOG + "floors measure": "measure_floors", WORKLOG + "render": "render",
    WORKLOG + "replay": "replay", WORKLOG + "record": "record",
}  # fmt: skip


def commands() -> list[str]:
    """Every line of every bash block, without its comment."""
    found = []
    for body in re.findall(r"```bash\n(.*?)```", README, re.DOTALL):
        found += [re.split(r"\s+# ", line)[0].strip() for line in body.splitlines()]
    return [line for line in found if line and not line.startswith("#")]


def elsewhere(command: str) -> str | None:
    """The key in ELSEWHERE that is the longest beginning of the command, word by word."""
    keys = [k for k in ELSEWHERE if command == k.strip() or command.startswith(k.strip() + " ")]
    return max(keys, key=len, default=None)


HERE = [command for command in commands() if elsewhere(command) is None]


def test_the_readme_is_short_and_its_first_screen_has_everything() -> None:
    assert len(README.splitlines()) <= 130
    first = README.split("## ")[0]
    for part in (
        "worklog:figure",
        "worklog:problems",
        "./run.sh",
        "./test.sh",
        "worklog diff",
    ):
        assert part in first
    assert len(commands()) >= 20


@pytest.mark.parametrize("key", ELSEWHERE)
def test_a_slow_command_is_run_by_the_test_that_is_named(key: str) -> None:
    assert any(elsewhere(command) == key for command in commands()), "not in the README any more"
    assert NAMED_THERE[key] in (ROOT / ELSEWHERE[key]).read_text(encoding="utf-8")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like the checkout, with two traces of the reader's own."""
    for name in ("problems", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    traces = ROOT / "tests" / "data" / "run_tiny" / "traces"
    for name, variant in (("before", "bf16"), ("after", "float8wo-0.14.1")):
        shutil.copy(traces / variant / "trace.json.gz", tmp_path / f"{name}.json.gz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", HERE)
def test_a_command_of_the_readme_does_what_it_says(
    command: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.startswith(WORKLOG), f"{command} is run nowhere: run it here or say where it is"
    words: list[str] = []
    for word in shlex.split(command.removeprefix(WORKLOG)):
        words += sorted(glob.glob(word)) if "*" in word else [word]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert out.strip() or "check" in words
    for option, begin in (("--html", "<!DOCTYPE"), ("--out", "<!DOCTYPE"), ("--markdown", "")):
        if option in words:
            written = (place / words[words.index(option) + 1]).read_text(encoding="utf-8")
            assert written.startswith(begin) and len(written) > 500


def test_the_readmes_table_and_figure_are_fresh_and_complete() -> None:
    findings = [str(f) for f in check([]) if f.path.name == "README.md"]
    assert findings == []
    table = README.split("<!-- worklog:problems -->")[1].split("<!-- /worklog:problems -->")[0]
    for path in (ROOT / "problems").glob("*/problem.toml"):
        assert f"[{path.parent.name}](problems/{path.parent.name}/WORKLOG.md)" in table
    for head in ("symptom", "cause", "effect", "% of floor", "status"):
        assert f" {head} |" in table


def test_links_of_the_readme_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("http") or (ROOT / link).exists(), link
