"""Is a plan of steps read as it stands, and every step that could never run refused?"""

from __future__ import annotations

from typing import Any

import pytest

from common.contract.problem import load_problem, problem_names
from common.contract.record import RecordStep, check_steps, read_record_steps
from common.errors import UsageError

ROW: dict[str, Any] = {
    "name": "verdict", "proves": "it is slow", "run": "bench", "priority": 10,
    "seconds": {"gpu": 300, "tiny": 40}, "presets": ["large", "tiny"], "variants": ["slow"],
}  # fmt: skip


def read(**changed: Any) -> RecordStep:
    (step,) = read_record_steps({"record": [{**ROW, **changed}]})
    return step


def test_a_step_is_read_as_it_stands() -> None:
    step = read(needs=["gpu", "ncu", "capability 8.9"])
    assert (step.run, step.priority, step.presets) == ("bench", 10, ("large", "tiny"))
    assert step.tools == ("ncu",) and step.capability == 8.9
    assert read_record_steps({}) == ()


def test_a_rehearsal_is_tiny_and_needs_no_gpu() -> None:
    step = read(needs=["gpu", "capability 8.9"]).rehearsed()
    assert step.presets == ("tiny",) and step.needs == () and step.variants == ("slow",)
    shown = read(run="ncu", rehearse={"arguments": ["--dry-run"], "run": "nsys"}).rehearsed()
    assert shown.arguments == ("--dry-run",) and shown.run == "nsys"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"run": "rm -rf"}, "none of bench"),
        ({"run": "../evil.py"}, "none of bench"),
        ({"rehearse": {"run": "nothing"}}, "none of bench"),
        ({"seconds": {"gpu": 300}}, "gpu and tiny"),
        ({"seconds": {"gpu": 0, "tiny": 1}}, "above zero"),
        ({"priority": "first"}, "no whole number"),
        ({"needs": ["magic"]}, "use gpu, nsys"),
        ({"rehearse": {"seconds": 3}}, "it may hold"),
        ({"name": "../x"}, "names folders"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_step_that_could_never_run_is_refused(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read(**changed)


def test_two_steps_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="twice"):
        read_record_steps({"record": [ROW, ROW]})


def test_a_step_names_only_what_the_problem_has() -> None:
    with pytest.raises(UsageError, match=r"variant 'slow'; there are: fast"):
        check_steps([read()], ["fast"], ["large", "tiny"])
    with pytest.raises(UsageError, match=r"preset 'large'"):
        check_steps([read()], ["slow"], ["tiny"])


def test_every_problem_here_says_what_is_to_be_recorded_and_by_priority() -> None:
    steps = [step for name in problem_names() for step in load_problem(name).record]
    assert {name for name in problem_names() if not load_problem(name).record} == set()
    first = min(steps, key=lambda step: step.priority)
    assert first.name == "verdict"  # float8's: the evidence that is worth most
    profilers = [step.priority for step in steps if step.run in ("ncu", "nsys")]
    assert min(profilers) > max(s.priority for s in steps if s.run not in ("ncu", "nsys"))
    assert all(step.proves for step in steps)
