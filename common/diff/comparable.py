"""Is the speed of two sides comparable at all? Their machines, presets and devices must be equal.

What a study changes on purpose (the variant, versions of packages, a driver) never makes two sides
incomparable. What is not known is not different.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from common.diff.sides import Side
from common.traces.intervals import total_ns
from common.traces.model import HostKind, Trace

LEAST_OVERLAP = 0.5
"""Below this part of a side's time in names that the other side has too there is a warning."""

MACHINE_FACTS = (("cpu", "CPU"), ("usable_cpus", "usable CPUs"))


def incomparable(a: Side, b: Side) -> tuple[str, ...]:
    """Why nothing can be said about speed, one line each; empty where something can."""
    found = [*_manifest_differences(a, b)]
    gpus = _gpus_differ(a, b)
    return (*found, *([gpus] if gpus else []))


def device_names(side: Side) -> tuple[set[str], bool]:
    """(names of the devices that did work, whether all of them are known)."""
    names = [device.get("name") for device in side.summary.get("devices", ())]
    known = {_plain(name) for name in names if name and _plain(name)}
    return known, bool(names) and all(names)


def overlap_warning(a: Side, b: Side) -> str | None:
    """A warning where the sides share few names: rows are then matched by place, not by name."""
    times_a, times_b = time_by_name(a.trace), time_by_name(b.trace)
    shared = times_a.keys() & times_b.keys()
    parts = [
        sum(times[name] for name in shared) / total if (total := sum(times.values())) else None
        for times in (times_a, times_b)
    ]
    if parts[0] is None or parts[1] is None or min(parts[0], parts[1]) >= LEAST_OVERLAP:
        return None
    what = "kernel" if a.trace.has_gpu_events and b.trace.has_gpu_events else "operator"
    return (
        f"only {parts[0]:.1%} of the {what} time of {a.label} and {parts[1]:.1%} of that of "
        f"{b.label} is under names that both sides have: check in the rows what was taken for what"
    )


def time_by_name(trace: Trace) -> dict[str, int]:
    """Time of GPU work by name; of operators, inclusive, in a trace without GPU work."""
    if trace.has_gpu_events:
        return _totals(trace, trace.gpu.name, trace.gpu.duration_ns)
    rows = trace.host.kind == HostKind.OPERATOR
    return _totals(trace, trace.host.name[rows], trace.host.duration_ns[rows])


def _totals(trace: Trace, names: Any, durations: Any) -> dict[str, int]:
    order = np.argsort(names, kind="stable")
    used, first = np.unique(names[order], return_index=True)
    parts = np.split(durations[order], first[1:])
    if not len(used):
        return {}
    return {
        trace.names[number]: total_ns(part)
        for number, part in zip(used.tolist(), parts, strict=True)
    }


def repetition_factor(a: Trace, b: Trace) -> Fraction | None:
    """k where B did everything exactly k times as often as A, k not 1: a longer capture, or more
    work per step, which a capture without steps cannot tell apart. None otherwise."""
    counts = [_counts(trace) for trace in (a, b)]
    if not counts[0] or counts[0].keys() != counts[1].keys():
        return None
    factors = {Fraction(counts[1][name], count) for name, count in counts[0].items()}
    factor = factors.pop()
    return None if factors or factor == 1 else factor


def _counts(trace: Trace) -> Counter[str]:
    numbers = trace.gpu.name
    if not trace.has_gpu_events:
        numbers = trace.host.name[trace.host.kind == HostKind.OPERATOR]
    used, counts = np.unique(numbers, return_counts=True)
    return Counter({trace.names[n]: c for n, c in zip(used.tolist(), counts.tolist(), strict=True)})


def _plain(name: str) -> str:
    """Drivers came to put the vendor first: "A100-SXM4-40GB" is "NVIDIA A100-SXM4-40GB"."""
    return " ".join(name.lower().split()).removeprefix("nvidia ")


def _gpus_differ(a: Side, b: Side) -> str | None:
    (of_a, all_a), (of_b, all_b) = device_names(a), device_names(b)
    if not of_a or not of_b or of_a == of_b:
        return None
    if of_a & of_b and not (all_a and all_b):
        return None
    return f"the devices differ: {_shown(a)} in A, {_shown(b)} in B"


def _shown(side: Side) -> str:
    names = {device.get("name") for device in side.summary.get("devices", ())}
    return " and ".join(sorted(name for name in names if name))


def _manifest_differences(a: Side, b: Side) -> list[str]:
    if a.manifest is None or b.manifest is None or same_run(a, b):
        return []
    facts_a, facts_b = (_facts(side) for side in (a, b))
    return [
        f"not the same {what}: {facts_a[what]} in A, {facts_b[what]} in B"
        for what in facts_a
        if facts_a[what] is not None
        and facts_b[what] is not None
        and facts_a[what] != facts_b[what]
    ]


def same_run(a: Side, b: Side) -> bool:
    """Whether both sides come from one run folder."""
    if a.run_folder is None or b.run_folder is None:
        return False
    return a.run_folder.resolve() == b.run_folder.resolve()


def _facts(side: Side) -> dict[str, Any]:
    """What must be equal for two runs to measure the same thing on the same machine."""
    manifest: Mapping[str, Any] = side.manifest or {}
    machine, preset = manifest.get("machine", {}), manifest.get("preset", {})
    settings = preset.get("settings") or {}
    parameters = manifest.get("facts", {}).get(side.variant, {}).get("parameters") or {}
    gpus = sorted(_plain(gpu["name"]) for gpu in machine.get("gpus") or () if gpu.get("name"))
    on_gpu = manifest.get("device", {}).get("kind") == "cuda"
    return {
        "problem": manifest.get("problem"),
        "kind of device": manifest.get("device", {}).get("kind"),
        **{f"machine ({says})": machine.get(fact) for fact, says in MACHINE_FACTS},
        "machine (GPU)": ", ".join(dict.fromkeys(gpus)) or None if on_gpu else None,
        "preset": preset.get("name"),
        "settings of the preset": _sorted(settings) or None,
        "number of parameters": parameters.get("total"),
    }


def _sorted(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={settings[key]}" for key in sorted(settings))
