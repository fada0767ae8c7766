"""In what do the sides of a report differ, beside their results? First things first on a page.

Within one run the sides are its variants; in a report of several runs they are the runs, and a
comparison of times between them is worth no more than this table is short.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.report import run_tables
from common.report.html_environment import SOFTWARE, in_words, installed, settings_in_words
from common.report.run_view import RunView
from common.report.tables import Table, escape_html

IRRELEVANT = ("gpus",)


def variants_differ(view: RunView, _: Path) -> str:
    """The facts in which the variants of one run differ, and those which all share in a line."""
    facts: dict[str, dict[str, str]] = {}
    for name, found in view.facts.items():
        variant = view.manifest["variants"].get(name, {})
        told = {key.replace("_", " "): installed(found, key) for key in SOFTWARE if key in found}
        own = {f"${key}": str(value) for key, value in variant.get("environment", {}).items()}
        facts[name] = {**told, **own}
    if len(facts) < 2:
        return ""
    table = differing(facts, "variant")
    same = shared(facts)
    note = f'<p class="note">The same for all: {escape_html(same)}.</p>\n' if same else ""
    if not table.rows:
        return f"<p>All variants ran with the same software.</p>{note}"
    return table.html("Software that differs between the variants", style="fit") + note


def runs_differ(views: Sequence[RunView]) -> str:
    """The facts of machine and software in which several runs differ."""
    names = run_names(views)
    facts = {name: _facts_of(view) for name, view in zip(names, views, strict=True)}
    for name, told in zip(names, _settings(views), strict=True):
        facts[name].update({"settings that differ": told} if told else {})
    table = differing(facts, "run")
    if not table.rows:
        return "<p>The runs are of one machine, preset, revision and software.</p>\n"
    banner = ""
    if len({view.machine for view in views}) > 1:
        banner = (
            '<p class="banner" role="note"><strong>Different machines.</strong> Ratios to the '
            "baseline of the same run can be set side by side; times cannot.</p>\n"
        )
    same = shared(facts)
    note = f'<p class="note">The same for all: {escape_html(same)}.</p>\n' if same else ""
    return banner + table.html("What differs between the runs", style="fit") + note


def run_names(views: Sequence[RunView]) -> list[str]:
    """A name for each run that no two share."""
    names: list[str] = []
    for number, view in enumerate(views, 1):
        name = view.folder.absolute().name
        names.append(name if name not in names else f"{name} ({number})")
    return names


def differing(facts: Mapping[str, Mapping[str, str]], side: str) -> Table:
    """One row per side, one column per fact in which at least two of them differ."""
    keys = [key for key in _keys(facts) if len({of.get(key, "") for of in facts.values()}) > 1]
    rows = tuple((name, *(of.get(key, "") for key in keys)) for name, of in facts.items())
    return Table((side, *keys), rows if keys else ())


def shared(facts: Mapping[str, Mapping[str, str]]) -> str:
    """What all sides have in common: "torch 2.13.0, threads 2"."""
    said = []
    for key in _keys(facts):
        values = {of.get(key, "") for of in facts.values()}
        if len(values) == 1 and (value := values.pop()):
            said.append(f"{key} {value}")
    return ", ".join(said)


def _keys(facts: Mapping[str, Mapping[str, str]]) -> list[str]:
    return list(dict.fromkeys(key for of in facts.values() for key in of))


def _settings(views: Sequence[RunView]) -> list[str]:
    """Of each run, the settings of its preset in which the runs of its problem differ."""
    own = [view.manifest["preset"].get("settings", {}) for view in views]
    told = []
    for view, settings in zip(views, own, strict=True):
        problem = view.manifest["problem"]
        others = [o for v, o in zip(views, own, strict=True) if v.manifest["problem"] == problem]
        differ = {k: v for k, v in settings.items() if any(o.get(k) != v for o in others)}
        told.append(settings_in_words(differ))
    return told


def _facts_of(view: RunView) -> dict[str, str]:
    manifest = view.manifest
    machine = {k: v for k, v in manifest["machine"].items() if k not in IRRELEVANT}
    gpus: Sequence[Mapping[str, Any]] = manifest["machine"].get("gpus") or ()
    found = {
        "problem": str(manifest["problem"]),
        "device": view.device,
        "driver": ", ".join(sorted({str(g.get("driver_version", "unknown")) for g in gpus})),
        "preset": str(view.summary["preset"]),
        "revision": str(view.summary["revision"])[:12],
        "instructions": "" if gpus else run_tables.cpu_capability(manifest) or "not recorded",
        "torch": view.versions("torch"),
        "torchao": view.versions("torchao"),
        **dict(in_words(key, value) for key, value in machine.items()),
    }
    options = manifest.get("options") or {}
    found["options"] = settings_in_words(options)
    return {key: value for key, value in found.items() if value}
