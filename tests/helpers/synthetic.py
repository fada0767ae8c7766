"""A small problem that needs no torch: its sides spin for a time that is known beforehand."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

REPRO = '''"""Spins. Its variants are a factor apart, and some of them misbehave on purpose."""
import gzip, json, os, signal, sys, time
import numpy as np

print("noise on stdout that is no answer")

def spin(ns):  # of CPU time, so that a busy machine changes nothing
    start = time.thread_time_ns()
    while time.thread_time_ns() - start < ns:
        pass
    return time.thread_time_ns() - start

class Session:
    def __init__(self, factor=1, base_us=400, steps=4, needs=1 << 20, behaviour="", **options):
        self.factor, self.base_us, self.steps, self.needs = factor, base_us, steps, needs
        self.behaviour, self.options, self.taken = behaviour, options, 0

    def needs_bytes(self):
        return self.needs

    def prepare(self):
        if self.behaviour == "cannot be prepared":
            open("/nonexistent/home/someone/weights.bin")
        library = __import__("fakelib").VERSION if "fakelib" in self.behaviour else None
        if self.behaviour == "nan facts":
            return {"loss": float("nan")}
        return {"library": library, "flag": os.environ.get("SPIN_FLAG"),
                "cwd_first": sys.path[0] in ("", os.getcwd())}

    def sample(self):
        self.taken += 1
        if self.behaviour == "dies in round 3" and self.taken == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.behaviour == "zero time":
            return {"fill": 0, "step": 5}
        if self.behaviour == "sleeps":
            time.sleep(60)
        ns = self.base_us * 1000 * self.factor
        return {"fill": spin(ns), "step": sum(spin(ns) for _ in range(self.steps))}

    def renew(self):
        pass

    def outputs(self, path):
        logits = np.random.default_rng(7).normal(size=(3, 50)).astype(np.float32)
        if self.behaviour == "wrong":
            logits = np.roll(logits, 1, axis=-1)
        if self.behaviour == "nan":
            logits[0, 0] = np.nan
        if self.behaviour == "no outputs":
            return
        np.savez(path, fill=logits[:1], step=logits)

    def profile(self, folder):
        if self.behaviour == "cannot be profiled":
            raise RuntimeError("no profiler in /home/someone/here")
        with gzip.open(folder / "trace.json.gz", "wt") as stream:
            json.dump(TRACE(self.factor), stream)
        return {"profiled": True}

def TRACE(factor):
    def span(name, cat, ts, dur):
        return {"ph": "X", "cat": cat, "name": name, "pid": 1, "tid": 1, "ts": ts, "dur": dur}
    def memory(ts, size):
        return {"ph": "i", "name": "[memory]", "pid": 1, "tid": 1, "ts": ts,
                "args": {"Bytes": size, "Device Type": 0, "Device Id": -1}}
    return {"traceEvents": [
        span("step", "user_annotation", 100, 100),
        span("aten::mul", "cpu_op", 110, 60),
        span("aten::copy_", "cpu_op", 120, 20),
        span("aten::add", "cpu_op", 180, 10),
        memory(115, 1000 * factor), memory(150, 500), memory(160, -500),
        memory(165, -1000 * factor),
    ]}

def open_session(variant, preset, device, options):
    return Session(**variant, **preset, **options)
'''

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "plain": {"settings": {"factor": 1}},
    "double": {"settings": {"factor": 2}, "tolerance": 0.01},
    "shuffled": {
        "settings": {"behaviour": "wrong"},
        "tolerance": 0.01,
        "role": "must-be-rejected",
    },
    "fragile": {
        "settings": {"behaviour": "dies in round 3"},
        "tolerance": 0.01,
        "role": "diagnostic",
    },
}
CLAIMS = (("twice as slow", 'ratio("double", "plain", "step") within 25% of 2'),)
SECTIONS = (
    "Card", "Question", "Setup", "Floors", "Predictions", "First look", "Investigation",
    "Ruled out", "Root cause", "Fix", "Verification", "Threats to validity",
    "Reproduce each number", "Exercises", "Is this your problem?", "Journal and sources",
)  # fmt: skip
EXERCISES = "".join(
    f"{number}. *{tier}.* What is {number} times 7?\n\n   <details><summary>Answer</summary>It is "
    f"{number * 7}.<!-- check: {number * 7} = {number} * 7 --></details>\n\n"
    for number, tier in enumerate(("Read", "Read", "Predict", "Compute", "Break", "Port"), 1)
)
PREDICTIONS = """schema = "worklog.predictions/1"
[[set]]
name = "first"
devices = ["cpu-"]
preset = "small"
sealed = "2026-01-01"
basis = "arithmetic"
[[set.prediction]]
id = "P1"
quantity = 'ratio("double", "plain", "step")'
low = 1.5
high = 2.5
because = "it spins twice as long"
[[set.prediction]]
id = "P2"
quantity = 'milliseconds("plain", "step")'
low = 100
high = 200
because = "wrong on purpose"
"""


def toml_value(value: Any) -> str:
    if isinstance(value, Mapping):
        inside = ", ".join(f"{json.dumps(k)} = {toml_value(v)}" for k, v in value.items())
        return "{ " + inside + " }"
    return json.dumps(value)


def problem_toml(
    variants: Mapping[str, Mapping[str, Any]],
    claims: Sequence[tuple[str, str]],
    evidence: Mapping[str, str],
) -> str:
    lines = [
        'schema = "worklog.problem/1"', 'title = "Spinning"', 'status = "synthetic"',
        'question = "Is twice the work twice the time?"', 'symptom = "slow"', 'cause = "more work"',
        'baseline = "plain"', *([] if claims else ["claims = []"]), "[phases]", 'fill = ""',
        'step = "steps"',
    ]  # fmt: skip
    for name, table in variants.items():
        lines += [f"[variants.{json.dumps(name)}]", f"title = {json.dumps('the ' + name)}"]
        lines += [f"{key} = {toml_value(value)}" for key, value in table.items()]
    for name, settings, rounds, seconds in (
        ("small", {"steps": 4}, (10, 12), 20),
        ("tiny", {"steps": 2, "base_us": 100}, (3, 3), 5),
        ("apart", {"steps": 4, "needs": 1 << 60}, (10, 10), 20),
        ("long", {"steps": 4}, (5000, 5000), 1),
    ):
        lines += [
            f"[presets.{name}]", 'devices = ["cpu"]', "needs_device_bytes = 0",
            f"min_rounds = {rounds[0]}", f"max_rounds = {rounds[1]}", f"max_seconds = {seconds}",
            f"settings = {toml_value(settings)}",
        ]  # fmt: skip
    for says, claim in claims:
        lines += ["[[claims]]", f"says = {json.dumps(says)}", f"claim = '{claim}'"]
    lines += ["[evidence]", *[f"{key} = {json.dumps(place)}" for key, place in evidence.items()]]
    return "\n".join(lines) + "\n"


def make_problem(
    root: Path,
    name: str = "spin",
    variants: Mapping[str, Mapping[str, Any]] = VARIANTS,
    claims: Sequence[tuple[str, str]] = CLAIMS,
    evidence: Mapping[str, str] | None = None,
) -> Path:
    """Write `root/problems/NAME`; returns that folder."""
    folder = root / "problems" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "repro.py").write_text(REPRO)
    (folder / "problem.toml").write_text(problem_toml(variants, claims, evidence or {}))
    (folder / "predictions.toml").unlink(missing_ok=True)
    if {"plain", "double"} <= variants.keys():
        (folder / "predictions.toml").write_text(PREDICTIONS)
    return folder


def write_trace(path: Path, events: list[dict[str, Any]], **head: Any) -> Path:
    """A Chrome trace; gzipped if the name says so."""
    data = json.dumps({**head, "traceEvents": events}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path
