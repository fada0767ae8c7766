"""What is to be recorded of a problem on a GPU, in which order? The `[[record]]` tables.

    [[record]]
    name = "verdict"
    proves = "float8 weight-only decode is slower than bf16, and by how much"
    run = "bench"            # or profile, run, nsys, ncu; "package.module:function"; "script.py"
    priority = 10            # of all problems together; the lowest is recorded first
    seconds = { gpu = 300, tiny = 40 }   # expected, from the process's start to its end
    presets = ["llama-3.1-8b", "llama-3.2-3b"]   # the next one where one is too large
    variants = ["float8wo-0.13.0"]       # the baseline comes with them
    needs = ["gpu"]          # gpu, nsys, ncu, or "capability 8.9"
    arguments = []           # of the command, as they are
    rehearse = { presets = ["tiny"], arguments = ["--dry-run"] }   # what differs in a rehearsal

A rehearsal runs every step on a CPU, in a tiny form: it needs no GPU, whatever `needs` says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from common.errors import UsageError

VERBS = ("bench", "profile", "run", "nsys", "ncu")
FUNCTION = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+:[A-Za-z_]\w*")
SCRIPT = re.compile(r"[A-Za-z0-9_]+\.py")
NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
CAPABILITY = re.compile(r"capability (\d+\.\d+)")
TOOLS = ("nsys", "ncu")
OVERRIDES = ("run", "presets", "variants", "arguments")


@dataclass(frozen=True)
class RecordStep:
    """One step, in a process of its own. `seconds` are expected ones, by `gpu` and `tiny`."""

    name: str
    proves: str
    run: str
    priority: int
    seconds: Mapping[str, float]
    presets: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    needs: tuple[str, ...] = ("gpu",)
    arguments: tuple[str, ...] = ()
    rehearse: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_verb(self) -> bool:
        return self.run in VERBS

    @property
    def capability(self) -> float | None:
        """The least compute capability of the GPU, where it matters."""
        found = [match for need in self.needs if (match := CAPABILITY.fullmatch(need))]
        return max((float(match[1]) for match in found), default=None)

    @property
    def tools(self) -> tuple[str, ...]:
        return tuple(need for need in self.needs if need in TOOLS)

    def rehearsed(self) -> RecordStep:
        """The step as a rehearsal runs it: tiny, without a GPU."""
        changed: dict[str, Any] = {
            key: value if isinstance(value, str) else tuple(value)
            for key, value in self.rehearse.items()
        }
        changed.setdefault("presets", ("tiny",))
        step = replace(self, **changed)
        return replace(step, needs=step.tools if step.run in TOOLS else ())


def read_record_steps(document: Mapping[str, Any]) -> tuple[RecordStep, ...]:
    """The steps in the order of the file. Raises UsageError for one that could never be run."""
    steps = tuple(_read(row) for row in document.get("record", ()))
    names = [step.name for step in steps]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise UsageError(f"[[record]] {double!r} stands there twice; rename one")
    return steps


def _read(row: Mapping[str, Any]) -> RecordStep:
    lists = ("presets", "variants", "needs", "arguments")
    table: dict[str, Any] = {k: tuple(v) if k in lists else v for k, v in row.items()}
    try:
        step = RecordStep(**table)
    except TypeError as error:
        raise UsageError(
            f"[[record]] {row.get('name', 'without a name')!r} lacks or misuses a key ({error}); "
            "see common/contract/record.py for them"
        ) from error
    _check(step)
    return step


def _check(step: RecordStep) -> None:
    where = f"[[record]] {step.name!r}:"
    if not NAME.fullmatch(step.name):
        raise UsageError(f"{where} the name names folders; use a-z, digits and -")
    for run in (step.run, step.rehearse.get("run", step.run)):
        if run not in VERBS and not FUNCTION.fullmatch(run) and not SCRIPT.fullmatch(run):
            raise UsageError(
                f"{where} run {run!r} is none of {', '.join(VERBS)}, no package.module:function "
                "and no script.py; choose one"
            )
    expected = step.seconds
    if set(expected) != {"gpu", "tiny"} or not all(
        isinstance(s, int | float) and not isinstance(s, bool) and s > 0 for s in expected.values()
    ):
        raise UsageError(f"{where} seconds needs gpu and tiny, both above zero; write them")
    if isinstance(step.priority, bool) or not isinstance(step.priority, int):
        raise UsageError(f"{where} priority is no whole number; write one")
    for need in step.needs:
        if need not in ("gpu", *TOOLS) and not CAPABILITY.fullmatch(need):
            raise UsageError(f"{where} needs {need!r}: use gpu, nsys, ncu or capability N.N")
    strange = sorted(set(step.rehearse) - set(OVERRIDES))
    if strange:
        raise UsageError(f"{where} rehearse has {strange[0]!r}; it may hold {', '.join(OVERRIDES)}")


def check_steps(
    steps: Sequence[RecordStep], variants: Sequence[str], presets: Sequence[str]
) -> None:
    """Raises UsageError for a step that names what the problem does not have."""
    for step in steps:
        for form in (step, step.rehearsed()):
            for kind, named, known in (
                ("variant", form.variants, variants),
                ("preset", form.presets, presets),
            ):
                strange = [name for name in named if name not in known]
                if strange:
                    raise UsageError(
                        f"[[record]] {step.name!r} names {kind} {strange[0]!r}; "
                        f"there are: {', '.join(known)}"
                    )
