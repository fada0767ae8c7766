"""Does a finished run become evidence, and does what stood under its key go?"""

from __future__ import annotations

from pathlib import Path

import pytest

from common.experiments.keep import keep_run


def _run(folder: Path, name: str) -> Path:
    run = folder / "some-cpu" / name
    (run / "logs").mkdir(parents=True)
    (run / "logs" / "plain.log").write_text("/home/someone")
    (run / "report.html").write_text("<html>")
    (run / "manifest.json").write_text("{}")
    return run


def test_a_run_is_copied_named_and_replaces_what_its_key_named(tmp_path: Path) -> None:
    problem = tmp_path / "problem"
    problem.mkdir()
    contract = problem / "problem.toml"
    contract.write_text('a = 1\n\n[evidence]\ncpu = "recorded/x/old"\nmax = "recorded/x/m"\n')
    for name in ("old", "m"):
        (problem / "recorded" / "x" / name).mkdir(parents=True)
    first = keep_run(problem, "cpu", _run(tmp_path, "one"))
    assert first == Path("recorded/some-cpu/one")
    assert contract.read_text() == (
        'a = 1\n\n[evidence]\ncpu = "recorded/some-cpu/one"\nmax = "recorded/x/m"\n'
    )
    assert [path.name for path in (problem / first).iterdir()] == ["manifest.json"]
    assert not (problem / "recorded/x/old").exists() and (problem / "recorded/x/m").exists()
    keep_run(problem, "decode", _run(tmp_path, "two"))
    assert contract.read_text().endswith('\ndecode = "recorded/some-cpu/two"\n')
    assert (problem / first).exists()


@pytest.mark.parametrize(
    ("before", "key", "after"),
    [
        ('[evidence]\ndecode = ""\n', "decode", '[evidence]\ndecode = "recorded/some-cpu/one"\n'),
        ("a = 1\n", "cpu", 'a = 1\n\n[evidence]\ncpu = "recorded/some-cpu/one"\n'),
    ],
    ids=["a key that awaits its run", "the first run of a problem"],
)
def test_a_run_is_named_where_none_was(tmp_path: Path, before: str, key: str, after: str) -> None:
    problem = tmp_path / "problem"
    problem.mkdir()
    (problem / "problem.toml").write_text(before)
    keep_run(problem, key, _run(tmp_path, "one"))
    assert (problem / "problem.toml").read_text() == after
