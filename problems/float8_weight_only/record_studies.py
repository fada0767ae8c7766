"""Record studies anew: run each, keep its folder as evidence, render the pages, draw the figures.

    .venv/bin/python problems/float8_weight_only/record_studies.py [STUDY …]

Without names: conversion, kernels, codegen, decode and ablation, in this order; about 20 minutes on
a quiet machine of two cores, on which nothing else should run. A study whose checks or claims say
no is recorded all the same: what came out is what is kept. One that gives no run stops this.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from common.contract.problem import load_problem, root
from common.timing.worker_client import child_command, child_environment

STUDIES = ("conversion", "kernels", "codegen", "decode", "ablation")
PRESETS = {"decode": "cpu", "ablation": "cpu"}  # of variants; the others have a size of their own
NOT_KEPT = ("logs", "report.html")


def run_study(name: str, study: str, out: Path) -> Path:
    """The finished run folder of one study. Exit code 1 is a check that says no: kept."""
    command = [*child_command("common.cli"), "bench", name, "--study", study, "--out", str(out)]
    if study in PRESETS:
        command += ["--preset", PRESETS[study]]
    done = subprocess.run(command, check=False, env=child_environment())
    found = [path for path in out.glob("*/*/*") if not path.name.endswith(".unfinished")]
    if done.returncode not in (0, 1) or len(found) != 1:
        raise SystemExit(f"error: study {study} gave no run; read its messages above")
    return found[0]


def keep(run: Path, study: str, problem_toml: Path) -> Path:
    """Move the run beside the other evidence and name it in [evidence]; its forerunner goes."""
    for name in NOT_KEPT:
        unwanted = run / name
        shutil.rmtree(unwanted) if unwanted.is_dir() else unwanted.unlink(missing_ok=True)
    place = problem_toml.parent / "recorded" / run.parent.name / run.name
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(run, place)
    text = problem_toml.read_text(encoding="utf-8")
    line = f'{study} = "{place.relative_to(problem_toml.parent).as_posix()}"'
    head, mark, evidence = text.partition("[evidence]\n")
    assert mark, "problem.toml has no [evidence]"
    old = re.search(rf'^{study} = "(.*)"$', evidence, re.MULTILINE)
    if old is None:
        evidence = evidence.rstrip("\n") + f"\n{line}\n"
    else:
        evidence = evidence.replace(old.group(0), line)
        former = problem_toml.parent / old.group(1)
        if old.group(1) and former.is_dir() and former != place:
            shutil.rmtree(former)
    problem_toml.write_text(head + mark + evidence, encoding="utf-8")
    return place


def main() -> None:
    wanted = sys.argv[1:] or list(STUDIES)
    problem = load_problem(Path(__file__).parent.name)
    for study in wanted:
        problem.study_variants(study)  # a wrong name must not show after the first hour
    for study in wanted:
        # Beside the place where it will lie: moved, not copied, and on one file system.
        (root() / "results").mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root() / "results") as out:
            run = run_study(problem.name, study, Path(out))
            print(f"recorded {keep(run, study, problem.folder / 'problem.toml')}", flush=True)
    render = [*child_command("common.cli"), "render", problem.name]
    subprocess.run(render, check=False, env=child_environment())


if __name__ == "__main__":
    main()
