"""Record this problem's evidence on this machine, then make figures and pages from it.

    .venv/bin/python problems/moe_batch_scaling/record.py

On a quiet machine, about half an hour on two cores. Takes the preset cpu with all its variants, the
comparison of backends once more until it is precise, and the exercise's sweep with the cost of
profiling and the comparison with Qwen3-MoE; copies each run into `recorded/`, names it in
problem.toml's [evidence], and renders. What was recorded before by the same key is replaced. With
names of runs (cpu, precise, exercise): only those. A folder of a run that was made already is taken
by `record.py cpu=FOLDER`. Hugging Face's sides need `./run.sh setup --dev`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # for `problems`, when run as a script

from common.experiments.keep import keep_run

HERE = Path(__file__).resolve().parent
NAME = HERE.name
# key of [evidence] -> the arguments of its run
RUNS = {
    "cpu": ["--preset", "cpu"],
    "precise": ["--preset", "cpu-precise", "--variant", "backends"],
    "exercise": ["--preset", "exercise", "--variant", "profiling-cost",
                 "--variant", "backends-qwen3"],
}  # fmt: skip


def worklog(*words: str) -> int:
    return subprocess.run([sys.executable, "-m", "common.cli", *words], check=False).returncode


def record(arguments: list[str], scratch: str) -> Path:
    """Run; returns the finished folder."""
    worklog("run", NAME, *arguments, "--device", "cpu", "--out", scratch)
    found = sorted(p for p in Path(scratch, NAME).glob("*/*") if p.is_dir())
    finished = [p for p in found if not p.name.endswith(".unfinished")]
    if not finished:
        print("error: the run did not finish; run it by itself and look", file=sys.stderr)
        sys.exit(1)
    return finished[-1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", metavar="RUN[=FOLDER]", help="default: all")
    chosen = dict(word.partition("=")[::2] for word in parser.parse_args().runs or RUNS)
    unknown = [key for key in chosen if key not in RUNS]
    if unknown:
        print(
            f"error: no run is called {unknown[0]}; choose from {', '.join(RUNS)}", file=sys.stderr
        )
        sys.exit(2)
    for key, made in chosen.items():
        with tempfile.TemporaryDirectory() as scratch:
            place = keep_run(
                HERE, key, Path(made).resolve() if made else record(RUNS[key], scratch)
            )
        for samples in (HERE / place).glob("traces/*/samples.jsonl"):
            samples.unlink()  # the finished points hold them
    sys.exit(worklog("render", NAME) or worklog("check", NAME))


if __name__ == "__main__":
    main()
