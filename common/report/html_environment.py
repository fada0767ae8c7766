"""On what, with what, and where are the files? The folded part at the end of a run's report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from common.report.run_view import RunView
from common.report.tables import Table, escape_html

DOCUMENTS = ("manifest.json", "samples.jsonl", "summary.json", "checks.json", "floors.json")
PACKAGES = ("torch", "torchao", "triton", "numpy")
FILES_SHOWN = 16
SOFTWARE = (*PACKAGES, "compiler", "threads", "cpu_capability", "compile_mode")


# What each section was made from, where it is not the whole folder.
RAW = {
    "times": ("samples.jsonl",),
    "samples": ("samples.jsonl",),
    "floors": ("floors.json",),
    "correctness": ("checks.json",),
    "attribution": ("traces/*/trace.json.gz",),
    "timeline": ("traces/*/trace.json.gz",),
    "memory": ("traces/*/trace.json.gz", "traces/**/*.pickle", "traces/**/*.pickle.gz"),
}


def raw_data(view: RunView, section: str, where: Path) -> str:
    """Links to what a section was made from; empty where the run has none of it."""
    files = [f for pattern in RAW.get(section, ()) for f in sorted(view.folder.glob(pattern))]
    links = ", ".join(_link(path, view.folder, where) for path in files if path.is_file())
    return f'<p class="note raw">Made from: {links}</p>\n' if links else ""


def environment(view: RunView, where: Path) -> str:
    """`where` is the run's folder as seen from the page."""
    return (
        "<details><summary>Machine, software and sampling</summary>\n"
        + _machine(view)
        + _software(view)
        + _sampling(view)
        + "</details>\n<p>The files of this run:</p>\n"
        + _links(view.folder, where)
    )


def in_words(key: str, value: Any) -> tuple[str, str]:
    """A fact's name and value: bytes with a unit that can be read, None as what it means."""
    name = key.replace("_", " ")
    if value is None:
        return name, "unknown"
    if isinstance(value, bool):
        return name, "yes" if value else "no"
    if key.endswith("_bytes") and isinstance(value, int):
        size, unit = (value / (1 << 30), "GiB") if value >= 1 << 30 else (value / (1 << 20), "MiB")
        return name.removesuffix(" bytes"), f"{size:.3g} {unit}"
    return name, str(value)


def settings_in_words(settings: Mapping[str, Any]) -> str:
    """A preset's settings: "mode max; batches 1, 8; rounds (least 10, most 30)"."""
    return "; ".join(f"{key.replace('_', ' ')} {_plain(value)}" for key, value in settings.items())


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"({'; '.join(f'{key} {_plain(own)}' for key, own in value.items())})"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "none"
    return in_words("", value)[1]


def _facts(caption: str, facts: Mapping[str, Any]) -> str:
    rows = tuple(in_words(key, value) for key, value in facts.items())
    return Table(("fact", "value"), rows).html(caption) if rows else ""


def _machine(view: RunView) -> str:
    machine = dict(view.manifest["machine"])
    gpus = machine.pop("gpus", None) or ()
    parts = [_facts("Machine", machine)]
    parts += [_facts(f"GPU {number}", gpu) for number, gpu in enumerate(gpus)]
    return "".join(parts)


def _software(view: RunView) -> str:
    facts = view.facts
    if not facts:
        return ""
    rows = tuple(
        (name, *(installed(found, key) for key in SOFTWARE)) for name, found in facts.items()
    )
    columns = ("variant", *(key.replace("_", " ") for key in SOFTWARE))
    return Table(columns, rows).html("Software, by variant")


def installed(facts: Mapping[str, Any], key: str) -> str:
    """A software fact of one variant in words; a package that is absent is said to be."""
    if key in PACKAGES and key in facts and facts[key] is None:
        return "not installed"
    return in_words(key, facts.get(key))[1]


def _sampling(view: RunView) -> str:
    manifest = view.manifest
    sampling = manifest.get("sampling") or {}
    preset = manifest["preset"]
    asked = "as the study's own script says"
    if "min_rounds" in preset:
        rounds = f"{preset['min_rounds']} to {preset['max_rounds']} rounds"
        asked = f"{rounds}, about {preset['max_seconds']} s"
    order: dict[Any, str] = {
        True: "interleaved, in a new order each round",
        False: "one after the other",
    }
    return _facts(
        "How it was measured",
        {
            "command": "worklog " + " ".join(map(str, manifest.get("arguments", ()))),
            "asked for": asked,
            "settings": settings_in_words(preset["settings"]),
            "order of the variants": order.get(sampling.get("interleaved")),
            "stopped because": sampling.get("stopped_because"),
            "finished": manifest.get("finished") or manifest.get("status"),
            "worklog": manifest.get("worklog"),
        },
    )


def _links(folder: Path, where: Path) -> str:
    found = [folder / name for name in DOCUMENTS if (folder / name).is_file()]
    found += sorted(path for path in (folder / "traces").glob("**/*") if path.is_file())
    items = []
    for path in found:
        size = path.stat().st_size
        shown = f"{size / (1 << 20):.1f} MiB" if size >= 1 << 20 else f"{-(-size // 1024)} KiB"
        items.append(f'<li>{_link(path, folder, where)} <span class="how">{shown}</span></li>')
    own, others = items[:FILES_SHOWN], items[FILES_SHOWN:]
    listed = f'<ul class="files">{"".join(own)}</ul>\n'
    if others:
        listed += (
            f"<details><summary>{len(others):,} more files</summary>"
            f'<ul class="files">{"".join(others)}</ul></details>\n'
        )
    return listed


def _link(path: Path, folder: Path, where: Path) -> str:
    """A link to a file of the run, relative to the page."""
    inside = path.relative_to(folder).as_posix()
    link = quote((where / inside).as_posix(), safe="/", errors="surrogateescape")
    return f'<a href="{escape_html(link)}">{escape_html(inside)}</a>'
