"""Does `worklog new` make a problem that runs at once, has its image and passes every check?"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command import assert_one_line_error, run_folders, worklog

from common.errors import PreconditionError, UsageError
from common.pages.scaffold import make_problem

CHECKOUT = Path(__file__).resolve().parents[2]
NAME = "slow_rows"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with one problem, in which another was made."""
    root = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__", "build")
    shutil.copytree(
        CHECKOUT / "problems/gemlite_autotune", root / "problems/gemlite_autotune", ignore=ignored
    )
    shutil.copytree(CHECKOUT / "docker", root / "docker", ignore=ignored)
    for folder in ("common", "tests"):
        (root / folder).symlink_to(CHECKOUT / folder)
    (root / "README.md").write_text(
        "# Root\n\n<!-- worklog:problems -->\n<!-- /worklog:problems -->"
    )
    done = worklog(root, "new", NAME)
    assert done.returncode == 0, done.stderr
    assert str(root / "problems" / NAME / "repro.py") in done.stdout
    return root


def test_it_passes_every_check_and_stands_in_the_index(root: Path) -> None:
    done = worklog(root, "check", NAME)
    assert (done.returncode, done.stdout) == (0, "")
    assert f"[{NAME}](problems/{NAME}/WORKLOG.md)" in (root / "README.md").read_text()


def test_it_runs_and_is_judged(root: Path) -> None:
    variants = ("--variant", "row-by-row", "--variant", "wrong-rows-shuffled")
    done = worklog(root, "run", NAME, "--preset", "tiny", *variants, "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert {v: r["state"] for v, r in summary["variants"].items()} == {
        "at-once": "measured", "row-by-row": "measured", "wrong-rows-shuffled": "rejected",
    }  # fmt: skip
    (folder,) = run_folders(root)
    assert (folder / "report.html").exists()
    assert (folder / "traces" / "row-by-row" / "trace.json.gz").exists()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert list(manifest["predictions"]) == ["cpu-first"]  # sealed by its hash
    # Recorded as evidence, it is checked, replayed and rendered like any other.
    evidence = root / "problems" / NAME / "recorded" / "cpu" / "first"
    shutil.copytree(folder, evidence, ignore=shutil.ignore_patterns("logs", "report.html"))
    toml = root / "problems" / NAME / "problem.toml"
    toml.write_text(toml.read_text() + 'first = "recorded/cpu/first"\n')
    page = root / "problems" / NAME / "WORKLOG.md"
    block = "<!-- worklog:verdicts run=first phase=step -->\n<!-- /worklog:verdicts -->\n"
    page.write_text(page.read_text().replace("<!-- write: the effect,", block + "<!-- write: x,"))
    assert worklog(root, "render", NAME).returncode == 0
    assert "| row-by-row |" in page.read_text()
    done = worklog(root, "check", NAME)
    assert (done.returncode, done.stdout) == (0, "")
    assert worklog(root, "replay", NAME).returncode == 0


def test_its_image_is_made_as_all_are(root: Path) -> None:
    folder = root / "problems" / NAME
    for name in ("run.sh", "capture_nsys.sh", "capture_ncu.sh"):
        assert os.access(folder / name, os.X_OK)
        assert "gemlite_autotune" not in (folder / name).read_text()
    text = (folder / "Dockerfile").read_text()
    assert f"ARG PROBLEM={NAME}\n" in text and "gemlite_autotune" not in text
    other = (root / "problems/gemlite_autotune/Dockerfile").read_text()
    first_stage = re.compile(r"ARG BASE_IMAGE.*?\nFROM base", re.DOTALL)
    assert first_stage.search(text)[0] == first_stage.search(other)[0]  # type: ignore[index]
    lock = folder / "requirements-variants.txt"
    done = subprocess.run(  # the image's own installer: nothing to install is no error
        [sys.executable, str(root / "docker/install_variants.py"), str(lock), str(root / "empty")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    bake = (root / "docker/docker-bake.hcl").read_text()
    assert f'"{NAME}"' in bake and bake.count("problem = [") == 1
    dry = subprocess.run(
        [str(folder / "run.sh"), "bench", "--dry-run"],
        env={**os.environ, "DOCKER": "none", "WORKLOG": sys.executable},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert dry.returncode == 0, dry.stderr
    assert f"bench {NAME}" in dry.stdout


def test_prompts_must_be_written_once_it_is_no_draft(root: Path) -> None:
    toml = root / "problems" / NAME / "problem.toml"
    before = toml.read_text()
    toml.write_text(before.replace('status = "draft: the example', 'status = "explained: the'))
    done = worklog(root, "check", NAME)
    toml.write_text(before)
    assert done.returncode == 1
    assert "still to be written: six yes-or-no questions" in done.stdout


@pytest.mark.parametrize("name", ["", "Slow", "a-b", "../x", "x/y", "a b", "_x", "1x"])
def test_a_name_that_cannot_be_one_is_refused(
    root: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKLOG_ROOT", str(root))
    before = sorted((root / "problems").iterdir())
    with pytest.raises(UsageError, match="use e.g. slow_softmax"):
        make_problem(name)
    assert sorted((root / "problems").iterdir()) == before


def test_nothing_is_overwritten_and_a_model_is_needed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "exists already" in assert_one_line_error(worklog(root, "new", NAME), 2)
    monkeypatch.setenv("WORKLOG_ROOT", str(tmp_path))
    with pytest.raises(PreconditionError, match="to begin from"):
        make_problem("other")
