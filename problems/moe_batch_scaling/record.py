"""Record this problem's evidence on this machine, then make figures and pages from it.

    .venv/bin/python problems/moe_batch_scaling/record.py

On a quiet machine, about ten minutes on two cores. Takes the preset cpu with all its variants, and
the exercise's with the sweep, the cost of profiling and the comparison with Qwen3-MoE; copies each
run into `recorded/`, names it in problem.toml's [evidence], and renders. What was recorded before
by the same key is replaced. With names of runs (cpu, exercise): only those. A folder of a run that
was made already is taken by `record.py cpu=FOLDER`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # for `problems`, when run as a script

HERE = Path(__file__).resolve().parent
NAME = HERE.name
CPU_SET = "cpu-2026-11"  # of predictions.toml, about the preset cpu
# key of [evidence] -> the arguments of its run
RUNS = {
    "cpu": ["--preset", "cpu"],
    "exercise": ["--preset", "exercise", "--variant", "profiling-cost",
                 "--variant", "backends-qwen3"],
}  # fmt: skip


def worklog(*words: str) -> int:
    return subprocess.run([sys.executable, "-m", "common.cli", *words], check=False).returncode


def record(key: str, arguments: list[str]) -> Path:
    """Run, copy into recorded/, return the folder below this problem's."""
    with tempfile.TemporaryDirectory() as scratch:
        worklog("run", NAME, *arguments, "--device", "cpu", "--out", scratch)
        found = sorted(p for p in Path(scratch, NAME).glob("*/*") if p.is_dir())
        finished = [p for p in found if not p.name.endswith(".unfinished")]
        if not finished:
            print(f"error: {key} did not finish; run it by itself and look", file=sys.stderr)
            sys.exit(1)
        return take(finished[-1])


def take(run: Path) -> Path:
    """Copy a finished run into recorded/, without logs and page."""
    target = HERE / "recorded" / run.parent.name / run.name
    shutil.copytree(run, target, ignore=shutil.ignore_patterns("logs", "report.html"))
    for samples in target.glob("traces/*/samples.jsonl"):
        samples.unlink()  # the finished points hold them
    return target.relative_to(HERE)


def name_evidence(places: dict[str, Path]) -> None:
    """Write [evidence], the last table of problem.toml, anew."""
    path = HERE / "problem.toml"
    head, _, old = path.read_text(encoding="utf-8").partition("[evidence]\n")
    kept = dict(re.findall(r'^(\S+) = "(.*)"$', old, re.MULTILINE))
    for key, place in places.items():
        before = kept.get(key)
        if before and before != str(place):
            shutil.rmtree(HERE / before, ignore_errors=True)
        kept[key] = str(place)
    rows = "".join(f'{key} = "{place}"\n' for key, place in kept.items())
    path.write_text(f"{head}[evidence]\n{rows}", encoding="utf-8")


def score_predictions() -> None:
    """The set for CPUs is scored on the page once the run that it is about is the evidence."""
    page = HERE / "WORKLOG.md"
    text = page.read_text(encoding="utf-8")
    evidence = (HERE / "problem.toml").read_text(encoding="utf-8").partition("[evidence]\n")[2]
    scored = re.search(r'^cpu = ".*-cpu(\.\d+)?"$', evidence, re.MULTILINE) is not None
    marker = f"<!-- worklog:predictions set={CPU_SET}"
    plain, run = f"{marker} -->", f"{marker} run=cpu -->"
    page.write_text(
        text.replace(plain, run) if scored else text.replace(run, plain), encoding="utf-8"
    )


def main() -> None:
    chosen = dict(word.partition("=")[::2] for word in sys.argv[1:] or RUNS)
    unknown = [key for key in chosen if key not in RUNS]
    if unknown:
        print(
            f"error: no run is called {unknown[0]}; choose from {', '.join(RUNS)}", file=sys.stderr
        )
        sys.exit(2)
    for key, made in chosen.items():
        run = take(Path(made).resolve()) if made else record(key, RUNS[key])
        name_evidence({key: run})
    score_predictions()
    sys.exit(worklog("render", NAME) or worklog("check", NAME))


if __name__ == "__main__":
    main()
