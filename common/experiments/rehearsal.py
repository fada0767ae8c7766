"""Would a recording on a GPU machine arrive? Every step in tiny form, to the rendered page.

    worklog record --rehearse [PROBLEM …] [--out DIR]

In a copy of the checkout's problems: predictions are sealed (one per claim), every step of every
problem is planned and started on the CPU, packed, the archive imported, the worklogs rendered and
checked. What a GPU alone can do is shown as the command that it would be. The real worklogs are
never touched; nothing of it is evidence.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.contract.problem import Problem, load_problem, problem_names, root
from common.errors import CheckFailed
from common.experiments.import_evidence import import_evidence

BOUND = 1e12  # of a rehearsed prediction that has none on one side: TOML has no infinity in sets
SET = "rehearsal"


def rehearse(arguments: argparse.Namespace) -> int:
    """Returns the exit code of the command; raises CheckFailed where a station does not hold."""
    from common.experiments import recording_run
    from common.pages.check import render
    from common.recording.environment import device_slug, read_machine

    if arguments.dry_run:
        return recording_run.run(arguments)
    names = arguments.problems or problem_names()
    with tempfile.TemporaryDirectory(prefix="worklog-rehearsal-") as place:
        copy = Path(place) / "checkout"
        _copy_checkout(copy)
        out = (arguments.out or Path(place) / "out").absolute()
        arguments.out, arguments.pack = out, True
        with _root(copy):
            device = device_slug(read_machine(), "cpu")
            for name in names:
                seal_claims(load_problem(name), device)
            code = recording_run.run(arguments)
            parts = sorted(
                (arguments.pack_to or out).glob("record-*.tar.gz"), key=lambda p: p.stat().st_mtime
            )
            latest = [p for p in parts if _session_of(p) == _session_of(parts[-1])]
            done = import_evidence(latest, copy)
            if not done.is_whole:
                raise CheckFailed(f"the archive did not arrive whole: {done.warnings[0]}")
            _, findings = render(names)
            if findings:
                raise CheckFailed(f"the copy cannot be rendered: {findings[0]}")
            scored = _scored(copy, names, device)
        print(f"rehearsal: {len(done.runs)} runs arrived, {scored}", file=sys.stderr)
        return code


def _session_of(path: Path) -> str:
    return path.name.split(".part")[0].removesuffix(".tar.gz")


def _copy_checkout(target: Path) -> None:
    """Problems and the pages that show them; what they record goes into the copy alone."""
    shutil.copytree(
        root() / "problems", target / "problems", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("README.md",):
        if (root() / name).exists():
            shutil.copy2(root() / name, target / name)


@contextmanager
def _root(copy: Path) -> Iterator[None]:
    """The copy is the repository for this process and all that it starts; caches stay shared."""
    changed = {
        "WORKLOG_ROOT": str(copy),
        "WORKLOG_CACHE": os.environ.get("WORKLOG_CACHE") or str(root() / ".cache"),
        "WORKLOG_REVISION": os.environ.get("WORKLOG_REVISION") or "rehearsal",
    }
    before = {key: os.environ.get(key) for key in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


def seal_claims(problem: Problem, device: str) -> None:
    """Append to the copy's predictions.toml one set for every preset that a rehearsal runs."""
    presets = dict.fromkeys(
        preset for step in problem.record for preset in step.rehearsed().presets
    )
    lines = []
    for preset in presets:
        lines += ["", "[[set]]", f'name = "{SET}-{preset}"', f'devices = ["{device}"]']
        lines += [f'preset = "{preset}"', 'sealed = "2026-01-01"', 'basis = "the claims"']
        for number, (says, claim, _) in enumerate(problem.claims, 1):
            low = claim.low if math.isfinite(claim.low) else -BOUND
            high = claim.high if math.isfinite(claim.high) else BOUND
            lines += [
                "[[set.prediction]]", f'id = "Z{number}"',
                f"quantity = {json.dumps(str(claim.quantity))}", f"low = {low}", f"high = {high}",
                f"because = {json.dumps(says)}",
            ]  # fmt: skip
    path = problem.folder / "predictions.toml"
    text = path.read_text(encoding="utf-8") if path.exists() else (
        'schema = "worklog.predictions/1"\n'
    )  # fmt: skip
    path.write_text(text.rstrip("\n") + "\n" + "\n".join(lines) + "\n", encoding="utf-8")


def _scored(copy: Path, names: list[str], device: str) -> str:
    """How many sealed predictions the rendered pages of the copy show as decided."""
    decided = total = 0
    for name in names:
        page = (copy / "problems" / name / "WORKLOG.md").read_text(encoding="utf-8")
        if f"`{SET}-" not in page:
            raise CheckFailed(f"the page of {name} shows no rehearsed prediction; add the block "
                              "<!-- worklog:recorded --> to its WORKLOG.md")  # fmt: skip
        rows = [line for line in page.splitlines() if line.startswith("| Z")]
        total += len(rows)
        decided += sum("| hit |" in row or "**miss**" in row for row in rows)
    return f"{decided} of {total} rehearsed predictions were decided on the rendered pages"
