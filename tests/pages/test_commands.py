"""Can what the documents tell a reader to type be typed? All of it is parsed, the quick part run.

The README's own commands are in tests/test_readme.py. Here: the verb and its options exist, and so
do the files, problems, presets, variants, studies and sides of runs that a command names. Whatever
reads recorded evidence is run, and prints the lines that the page quotes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.document_commands import ROOT, Command, commands

from common.cli import build_parser, main
from common.contract.problem import load_problem, problem_names

PAGES = (
    *sorted((ROOT / "problems").glob("*/WORKLOG.md")),
    ROOT / "problems" / "README.md",
    ROOT / "RECORDING.md",
    ROOT / "DOCKER_README.md",
)
ALL = [command for page in PAGES for command in commands(page)]
OURS = ("problems/", "common/", "tests/", "docker/", "notebooks/")
VERBS_OF_IMAGES = (
    "all",
    "bench",
    "profile",
    "nsys",
    "ncu",
    "report",
    "notebook",
    "shell",
    "doctor",
)
# Where `./run.sh setup` puts what the variants need.
PACKAGES = {
    f".venv/variants/{package.replace('==', '-')}"
    for name in problem_names()
    for variant in load_problem(name).variants.values()
    for package in variant.packages
}
QUICK = (
    "show",
    "diff",
    "detect",
    "report",
)  # of what is recorded; replay and check: their own tests


def problem_words(words: list[str], problem: str = "") -> list[str] | None:
    """The arguments of `worklog` behind a command; None where it starts something else."""
    head, rest = words[0], words[1:]
    if head in ("worklog", ".venv/bin/worklog"):
        return rest
    if head == "python3" and rest[:2] == ["-m", "common.cli"]:
        return rest[2:]
    if head == "./run.sh" and not problem:
        return None if rest[:1] == ["setup"] else ["run", *rest]
    if head.endswith(("capture_nsys.sh", "capture_ncu.sh")):
        return [head.rsplit("_", 1)[1].removesuffix(".sh"), problem, *rest]
    if head.endswith("run.sh") and problem:
        verb = rest[0] if rest else "all"
        assert verb in VERBS_OF_IMAGES, verb
        return [verb, problem, *rest[1:]] if verb in ("bench", "profile", "nsys", "ncu") else None
    return None


def problem_of(command: Command) -> str:
    """The problem whose folder a script is typed in, or called from."""
    if match := re.match(r"problems/(\w+)/[\w.]+\.sh", command.text):
        return match[1]
    if command.text.startswith(("capture_", "./capture_")):
        own = command.page.parent
        return own.name if (own / "problem.toml").is_file() else "float8_weight_only"
    return "float8_weight_only" if command.page.name == "DOCKER_README.md" else ""


def parsed(arguments: list[str], typed_whole: bool) -> argparse.Namespace:
    """Raises AssertionError with argparse's own words."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return build_parser().parse_args(arguments)
    except SystemExit as ended:
        unsaid = "arguments are required" in said.getvalue()  # only named: "with `worklog show`"
        if ended.code == 0 or (unsaid and not typed_whole):
            return argparse.Namespace(name=arguments[0])
        raise AssertionError(said.getvalue().strip()) from None


def files_of(word: str) -> list[Path]:
    place = word.split("#")[0]
    return [ROOT] if "NAME" in place else sorted(ROOT.glob(place))


def check_names(arguments: argparse.Namespace, created: set[str]) -> None:
    """Problem, preset, variants and study are those of a problem.toml."""
    named = [n for n in getattr(arguments, "problems", []) if n != "PROBLEM" and n not in created]
    assert set(named) <= set(problem_names()), named
    for name in named:
        problem = load_problem(name)
        if getattr(arguments, "study", None):
            problem.study_variants(arguments.study)
        elif getattr(arguments, "preset", None):
            assert arguments.preset in problem.presets, arguments.preset
        for variant in getattr(arguments, "variant", None) or ():
            assert variant in problem.variants, variant


def test_the_documents_have_commands_and_this_test_sees_them() -> None:
    assert len(ALL) >= 80
    for page in PAGES[:4]:
        own = [c for c in ALL if c.page == page]
        assert sum(c.in_block for c in own) >= 3, f"{page} has nothing to type beside its steps"
        quoted = sum(bool(c.promised) for c in own)
        assert quoted >= 1, f"{page} quotes no output of what it tells to type"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_every_command_of_a_page_names_what_exists(page: Path) -> None:
    created = {c.words[2] for c in ALL if c.page == page and " new " in c.text}
    wrong = []
    for command in (c for c in ALL if c.page == page):
        try:
            check_one(command, created)
        except Exception as error:  # each of them is told, not the first
            wrong.append(f"{command}: {type(error).__name__}: {error}")
    assert wrong == []


def check_one(command: Command, created: set[str]) -> None:
    words = command.words
    searched = words.pop(0).split("=")[1].split(":") if words[0].startswith("PYTHONPATH=") else []
    for place in searched:
        assert place in PACKAGES or (ROOT / place).is_dir(), (
            f"{place} is not made by ./run.sh setup"
        )
    problem = problem_of(command)
    for word in words:
        if word.startswith(OURS):
            assert files_of(word), f"{word} is no file"
            if "#" in word:
                side = files_of(word)[0] / "traces" / word.split("#")[1]
                assert side.is_dir(), f"{word} has no such side"
    arguments = problem_words(words, problem)
    if arguments is not None:
        check_names(parsed([a for a in arguments if a != "…"], command.in_block), created)
    elif words[0].endswith(("python", "python3")):
        check_python(words, [ROOT, *(ROOT / place for place in searched)])
    elif words[0] == "cd":
        assert (ROOT / words[1]).is_dir()


def check_python(words: list[str], tops: list[Path]) -> None:
    """The script or module exists and knows the options that it is given."""
    if words[1] == "-m":
        if not words[2].startswith(("problems.", "common.", "fused_float8")):
            return
        found = [p for top in tops if (p := top / f"{words[2].replace('.', '/')}.py").is_file()]
        assert found, f"{words[2]} is no module"
        source = found[0]
    else:
        source = ROOT / words[1]
    text = source.read_text(encoding="utf-8")
    for folder in (source.parent, ROOT / "common" / "experiments"):
        text += "".join(p.read_text(encoding="utf-8") for p in sorted(folder.glob("*.py")))
    for option in (word.split("=")[0] for word in words if word.startswith("--")):
        assert f'"{option}"' in text, f"{words[1]} has no option {option}"


RUN_HERE = [
    c
    for c in ALL
    if c.words[0] == ".venv/bin/worklog"
    and c.words[1] in QUICK
    and len(c.words) > 2
    and any(word.startswith("problems/") for word in c.words)
]


@pytest.mark.parametrize("command", RUN_HERE, ids=lambda c: f"{c.page.parent.name}-{c.line}")
def test_what_reads_recorded_evidence_prints_what_the_page_quotes(
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("problems", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    words: list[str] = []
    for word in command.words[1:]:
        found = sorted(str(p) for p in Path().glob(word)) if "*" in word else [word]
        words += found
    assert main(words) == 0, command
    printed = " ".join(capsys.readouterr().out.split())
    for line in command.promised:
        assert line in printed, f"{command} does not print {line!r}"


def test_quoted_output_belongs_to_a_command_that_is_run() -> None:
    assert [str(c) for c in ALL if c.promised and c not in RUN_HERE] == []


SCRIPTS = sorted(
    {
        c.words[1]
        for c in ALL
        if c.words[0] == ".venv/bin/python" and c.words[1].startswith("problems/")
    }
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_that_a_page_names_says_how_it_is_used(script: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / script), "--help"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.startswith("usage: "), done.stderr[-500:]
    assert "Traceback" not in done.stderr


def test_a_study_that_is_none_is_refused_before_anything_runs() -> None:
    script = ROOT / "problems" / "float8_weight_only" / "record_studies.py"
    done = subprocess.run(
        [sys.executable, str(script), "conversion", "convertion"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_a_wrong_command_is_found(tmp_path: Path) -> None:
    """The guard of the tests above: one of each kind of mistake."""
    page = PAGES[1]
    for text in (
        ".venv/bin/worklog bench float8_weight_only --study nothing",
        ".venv/bin/worklog run float8_weight_only --preset huge",
        ".venv/bin/worklog run float8_weight_only --variant other",
        ".venv/bin/worklog run float9",
        ".venv/bin/worklog diff --by-kernel a b",
        ".venv/bin/worklog show problems/float8_weight_only/recorded/none.json.gz",
        ".venv/bin/worklog diff tests/data/run_tiny#bf16 tests/data/run_tiny#bf17",
        ".venv/bin/python problems/float8_weight_only/repro.py --no-such-option",
        ".venv/bin/python problems/float8_weight_only/nothing.py",
        ".venv/bin/python -m fused_float8.aot",
        "PYTHONPATH=.venv/variants/triton-1.0 .venv/bin/python -m common.cli",
    ):
        with pytest.raises(Exception):  # noqa: B017
            check_one(Command(page, 1, text), set())
