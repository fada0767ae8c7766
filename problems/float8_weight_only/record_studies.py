"""Record studies anew: run each, keep its folder as evidence, render the pages, draw the figures.

    .venv/bin/python problems/float8_weight_only/record_studies.py [STUDY …] [--beside NAME]

Without names: conversion, kernels, codegen, decode and ablation, in this order; about 25 minutes on
a quiet machine of two cores, on which nothing else should run. A study whose checks or claims say
no is recorded all the same: what came out is what is kept. One that gives no run stops this.
It takes the place of what was recorded of that study before; with --beside NAME, where the machine
is of another kind, it is kept as STUDY_NAME and the old one stays.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from common.contract.problem import load_problem
from common.errors import UsageError
from common.experiments.keep import keep_run
from common.timing.worker_client import child_command, child_environment

STUDIES = ("conversion", "kernels", "codegen", "decode", "ablation")
PRESETS = {"decode": "cpu", "ablation": "cpu"}  # of variants; the others have a size of their own


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


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", nargs="*", metavar="STUDY", help="default: all five")
    parser.add_argument("--beside", metavar="NAME", help="keep as STUDY_NAME, replace no other run")
    given = parser.parse_args()
    wanted, suffix = given.studies or list(STUDIES), f"_{given.beside}" if given.beside else ""
    here = Path(__file__).resolve().parent
    problem = load_problem(here.name)
    try:
        if problem.folder.resolve() != here:
            raise UsageError(
                "the worklog command installed here is another checkout's, and would record into "
                "that; set PYTHONPATH to this one"
            )
        for study in wanted:
            problem.study_variants(study)  # a wrong name must not show after the first hour
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for study in wanted:
        with tempfile.TemporaryDirectory() as out:
            run = run_study(problem.name, study, Path(out))
            print(f"recorded {keep_run(problem.folder, study + suffix, run)}", flush=True)
    render = [*child_command("common.cli"), "render", problem.name]
    return subprocess.run(render, check=False, env=child_environment()).returncode


if __name__ == "__main__":
    sys.exit(main())
