"""Where do a page's numbers come from? Generated blocks, made from recorded runs.

    <!-- worklog:verdicts run=cpu phase=decode -->
    …made by `worklog render`, compared by `worklog check`…
    <!-- /worklog:verdicts -->

A block names what it shows and the evidence (a key of problem.toml's [evidence]). Text outside the
markers is never touched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.contract.problem import Problem, load_problem
from common.diff.compiled import diff_compiled
from common.errors import UsageError, WorklogError
from common.pages.drawing_block import drawing_block
from common.pages.figure_blocks import OPTIONS as FIGURE_OPTIONS
from common.pages.figure_blocks import Figure, make_figure, stale
from common.pages.finding import STALE, Finding, line_at, read_utf8
from common.pages.markdown import FENCE, blanked
from common.pages.prediction_table import prediction_table
from common.pages.published_block import published_block
from common.pages.recorded_block import recorded_block
from common.pages.runs_block import runs_block
from common.pages.scoring import is_about, runs_about, score_over
from common.pages.shared_blocks import SHARED
from common.recording.run_folder import Run, open_run, read_json
from common.report import run_tables
from common.report.compiled_page import compiled_difference
from common.report.evidence import Evidence
from common.report.floor_tables import measured_table, run_floor_table
from common.report.tables import Table
from common.traces.compiled_kernel import read_compiled, summarise_compiled

BLOCK = re.compile(
    r"<!-- worklog:(?P<name>[a-z-]+)(?P<options>(?: [a-z]+=[^ >]+)*) -->\n"
    # A body holds no marker: a block that is not closed must not swallow the text up to the next.
    r"(?P<body>(?:(?!<!-- /?worklog:).)*)"
    r"<!-- /worklog:(?P<end>[a-z-]+) -->",
    re.DOTALL,
)
MARKER = re.compile(r"<!-- /?worklog:")


@dataclass(frozen=True)
class Recorded:
    """One piece of evidence: the run folder and the summary stored with it."""

    run: Run
    summary: Mapping[str, Any]


def recorded(problem: Problem, key: str) -> Recorded:
    if key not in problem.evidence:
        raise UsageError(
            f"{problem.name} has no evidence {key!r}; name one of problem.toml's [evidence]: "
            f"{', '.join(problem.evidence) or 'it is empty'}"
        )
    folder = problem.folder / problem.evidence[key]
    return Recorded(open_run(folder), read_json(folder / "summary.json"))


def _with_footer(found: Recorded, table: Table) -> str:
    return table.markdown() + "\n\n" + run_tables.footer(found.summary, found.run.manifest)


def _verdicts(problem: Problem, options: Mapping[str, str]) -> str:
    found = recorded(problem, options["run"])
    phase = options.get("phase", "decode")
    if phase not in problem.phases:
        phases = ", ".join(problem.phases)
        raise UsageError(f"{problem.name} has no phase {phase!r}; there are: {phases}")
    return _with_footer(found, run_tables.verdicts(found.summary, phase))


def _claims(problem: Problem, options: Mapping[str, str]) -> str:
    found = recorded(problem, options["run"])
    return _with_footer(found, run_tables.claims(found.summary))


def _operators(problem: Problem, options: Mapping[str, str]) -> str:
    found = recorded(problem, options["run"])
    table = run_tables.operators(found.summary, options["variant"], options["phase"])
    return _with_footer(found, table)


def _memory(problem: Problem, options: Mapping[str, str]) -> str:
    found = recorded(problem, options["run"])
    return _with_footer(found, run_tables.memory(found.summary))


def _correctness(problem: Problem, options: Mapping[str, str]) -> str:
    found = recorded(problem, options["run"])
    return _with_footer(found, run_tables.correctness(found.summary))


def _floors(problem: Problem, options: Mapping[str, str]) -> str:
    """The machine's rates, and every variant's decode against its floor."""
    found = recorded(problem, options["run"])
    floors = Evidence(found.run).floors
    if floors is None:
        raise UsageError(f"evidence {options['run']} has no floors.json; record it anew")
    rates, table = measured_table(floors), run_floor_table(found.summary)
    if not table.rows:  # a problem whose variants are no decode of one model
        return _with_footer(found, rates)
    return rates.markdown() + "\n\n" + _with_footer(found, table)


def _pages(problem: Problem, options: Mapping[str, str]) -> str:
    """Fresh pages per repetition, where they were counted."""
    found = recorded(problem, options["run"])
    return _with_footer(found, run_tables.fresh_pages(found.summary))


def _table(problem: Problem, options: Mapping[str, str]) -> str:
    """A table that a variant's process worked out and wrote beside its figures."""
    found = recorded(problem, options["run"])
    tables = Evidence(found.run).tables(options["variant"])
    if options["table"] not in tables:
        known = ", ".join(tables) or "none"
        raise UsageError(
            f"{options['variant']} of evidence {options['run']} has no table "
            f"{options['table']!r}; there are: {known}"
        )
    stored = tables[options["table"]]
    rows = tuple(tuple(map(str, row)) for row in stored["rows"])
    table = Table(tuple(stored["columns"]), rows, tuple(stored["right"]), stored["note"])
    return _with_footer(found, table)


def _compiled(problem: Problem, options: Mapping[str, str]) -> str:
    """Two compiled kernels of a run, compared: a=VARIANT/NAME b=VARIANT/NAME."""
    found = recorded(problem, options["run"])
    paths = []
    for side in ("a", "b"):
        variant, _, name = options[side].partition("/")
        paths.append(found.run.folder / "traces" / variant / "kernels" / f"{name}.json.gz")
    one, other = map(read_compiled, paths)
    summaries = summarise_compiled(one, paths[0]), summarise_compiled(other, paths[1])
    difference = diff_compiled(one, other, *summaries)
    return _with_footer(found, compiled_difference(difference))


def _figures(problem: Problem, options: Mapping[str, str]) -> str:
    """Every figure of a problem that is not timed."""
    found = recorded(problem, options["run"])
    return _with_footer(found, run_tables.figures(found.summary))


def _setup(problem: Problem, options: Mapping[str, str]) -> str:
    rows = [
        (f"`{v.name}`", v.title, ", ".join(v.packages) or "none", v.role)
        for v in problem.variants.values()
    ]
    return Table(("variant", "what it is", "packages", "role"), tuple(rows)).markdown()


def _predictions(problem: Problem, options: Mapping[str, str]) -> str:
    """One set of predictions, scored on evidence by name, else on what was recorded and fits."""
    sets = next((s for s in problem.predictions if s.name == options["set"]), None)
    if sets is None:
        raise UsageError(
            f"{problem.name} has no set of predictions {options['set']!r}; see predictions.toml"
        )
    if "run" not in options:  # every run that was brought here and that the set is about
        found = score_over(sets, runs_about(sets, problem))
        return prediction_table(sets, found, problem.folder if found else None).markdown()
    one = recorded(problem, options["run"])
    device, preset = one.summary["device"]["slug"], one.summary["preset"]
    if not is_about(sets, one.run):
        cpu = run_tables.cpu_capability(one.run.manifest)
        with_cpu = f" ({cpu})" if cpu else ""
        raise UsageError(
            f"set {sets.name} is not about {device}{with_cpu} with preset {preset}; score it on "
            "another run or leave run= out"
        )
    return prediction_table(sets, score_over(sets, [one.run])).markdown()


def _recorded(problem: Problem, options: Mapping[str, str]) -> str:
    """What was recorded on GPUs and brought here, with every prediction about it."""
    return recorded_block(problem)


def _figure(problem: Problem, options: Mapping[str, str]) -> str:
    """A drawing in the problem's `figures/`; `render_page` returns the file beside the text."""
    return make_figure(problem, options).markdown


Renderer = Callable[[Problem, Mapping[str, str]], str]
RENDERERS: dict[str, tuple[Renderer, frozenset[str]]] = {  # and the options that it takes
    "verdicts": (_verdicts, frozenset({"run", "phase"})),
    "claims": (_claims, frozenset({"run"})),
    "operators": (_operators, frozenset({"run", "variant", "phase"})),
    "memory": (_memory, frozenset({"run"})),
    "correctness": (_correctness, frozenset({"run"})),
    "floors": (_floors, frozenset({"run"})),
    "pages": (_pages, frozenset({"run"})),
    "table": (_table, frozenset({"run", "variant", "table"})),
    "compiled": (_compiled, frozenset({"run", "a", "b"})),
    "figures": (_figures, frozenset({"run"})),
    "setup": (_setup, frozenset()),
    "runs": (runs_block, frozenset()),
    "drawing": (drawing_block, frozenset({"run", "name"})),
    "published": (published_block, frozenset({"model"})),
    "predictions": (_predictions, frozenset({"set", "run"})),
    "figure": (_figure, FIGURE_OPTIONS),
    "recorded": (_recorded, frozenset()),
}


def render_block(problem: Problem | None, name: str, options: Mapping[str, str]) -> str:
    """The body of one block. A page outside a problem's folder names it with problem=NAME."""
    if name in SHARED:
        return SHARED[name](options)
    if "problem" in options:
        problem = load_problem(options["problem"])
    if problem is None:
        raise UsageError(f"block {name} needs problem=NAME on this page; add it")
    if name not in RENDERERS:
        known = ", ".join(sorted([*RENDERERS, *SHARED]))
        raise UsageError(f"unknown block {name!r}; there are: {known}")
    renderer, accepted = RENDERERS[name]
    strange = sorted(options.keys() - accepted - {"problem"})
    if strange:
        takes = ", ".join(sorted(accepted)) or "none"
        raise UsageError(f"block {name} has no option {strange[0]!r}; it takes: {takes}")
    if options.get("run") in problem.awaited:
        return f"_Evidence `{options['run']}` is not recorded yet._"
    try:
        return renderer(problem, options)
    except (AttributeError, KeyError, TypeError) as error:
        raise UsageError(
            f"block {name} lacks the option or the data {error}; see the other blocks"
        ) from error


@dataclass(frozen=True)
class Rendered:
    """A page made anew: its text, the figures that it shows, and what stood otherwise before."""

    text: str
    figures: tuple[Figure, ...] = ()
    findings: list[Finding] = field(default_factory=list)


def blocks_of(text: str) -> list[re.Match[str]]:
    """The generated blocks of a page; an example in a code fence is none."""
    return list(BLOCK.finditer(blanked(text, FENCE)))


def options_of(match: re.Match[str]) -> dict[str, str]:
    return dict(option.split("=", 1) for option in match["options"].split())


def render_whole_page(path: Path, problem: Problem | None) -> Rendered:
    """The page with every block made anew, and what stood otherwise or could not be made."""
    text, findings = read_utf8(path)
    if findings:
        return Rendered(text, findings=findings)
    pieces, figures, at = [], [], 0
    for match in blocks_of(text):
        pieces.append(text[at : match.start()])
        written, at = text[match.start() : match.end()], match.end()
        name, line = match["name"], line_at(text, match.start())
        fresh = None
        if match["end"] != name:
            message = f"block {name} is closed as {match['end']}; correct its end"
            findings.append(Finding(path, line, message))
        else:
            try:
                fresh = render_block(problem, name, options_of(match))
                if name == "figure":
                    figures.append(_drawn(problem, options_of(match)))
            except WorklogError as error:
                findings.append(Finding(path, line, str(error)))
        if fresh is None:
            pieces.append(written)
            continue
        fresh = f"<!-- worklog:{name}{match['options']} -->\n{fresh}\n<!-- /worklog:{name} -->"
        if fresh != written:
            line += _first_difference(fresh, written)
            message = f"block {name} differs from its evidence; {STALE}"
            findings.append(Finding(path, line, message))
        elif name == "figure" and (wrong := stale(figures[-1])):
            findings.append(Finding(path, line, f"{wrong}; {STALE}"))
        pieces.append(fresh)
    outside = blanked(text, FENCE, BLOCK)
    for stray in MARKER.finditer(outside):
        message = "a marker has no partner or is misspelt; mend it"
        findings.append(Finding(path, line_at(outside, stray.start()), message))
    return Rendered("".join([*pieces, text[at:]]), tuple(figures), findings)


def _drawn(problem: Problem | None, options: Mapping[str, str]) -> Figure:
    chosen = load_problem(options["problem"]) if "problem" in options else problem
    assert chosen is not None  # render_block has refused it
    return make_figure(chosen, options)


def _first_difference(fresh: str, written: str) -> int:
    """Which line of a block is the first that is not as it should be, counted from its head."""
    new, old = fresh.split("\n"), written.split("\n")
    pairs = enumerate(zip(new, old, strict=False))
    return next((n for n, (one, other) in pairs if one != other), min(len(new), len(old)) - 1)


def render_page(path: Path, problem: Problem | None) -> tuple[str, list[Finding]]:
    """The page's text made anew, and its findings."""
    rendered = render_whole_page(path, problem)
    return rendered.text, rendered.findings
