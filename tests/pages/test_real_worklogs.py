"""Does `check` find each way in which the real worklogs could go wrong? On copies, one by one.

A copy of all worklogs with their evidence is damaged in one place; the damage must be found with
its file and line, beside whatever is found on the pages as they are.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.contract.problem import load_problem, problem_names
from common.pages.answers import CHECK
from common.pages.blocks import BLOCK, blocks_of, options_of
from common.pages.check import check
from common.pages.text_rules import SECTIONS, check_sections

CHECKOUT = Path(__file__).resolve().parents[2]
LIMIT_SECONDS = 15.0  # of `worklog check`, for everything


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("worklogs")
    ignored = shutil.ignore_patterns("__pycache__", "build", ".*")
    shutil.copytree(CHECKOUT / "problems", root / "problems", ignore=ignored)
    for page in CHECKOUT.glob("*.md"):
        shutil.copy(page, root)
    for folder in ("common", "tests", "docker", "notebooks"):
        if (CHECKOUT / folder).exists():
            (root / folder).symlink_to(CHECKOUT / folder)
    before = os.environ.get("WORKLOG_ROOT")
    os.environ["WORKLOG_ROOT"] = str(root)
    yield root
    if before is None:
        del os.environ["WORKLOG_ROOT"]
    else:
        os.environ["WORKLOG_ROOT"] = before


def found(name: str) -> set[str]:
    return {str(finding) for finding in check([name])}


@pytest.fixture(scope="module")
def clean(copy: Path) -> dict[str, set[str]]:
    """What is found on each worklog as it is."""
    return {name: found(name) for name in problem_names()}


def damage(path: Path, old: str, new: str, clean: set[str], name: str) -> set[str]:
    """What is found in addition once `old` has become `new`; the file is put back."""
    before = path.read_bytes()
    assert before.count(old.encode()), f"{path} has no {old!r}"
    try:
        path.write_bytes(before.replace(old.encode(), new.encode(), 1))
        return found(name) - clean
    finally:
        path.write_bytes(before)


def line_of(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def each_worklog(clean: dict[str, set[str]]) -> Iterator[tuple[str, Path, str, set[str]]]:
    for name in problem_names():
        page = load_problem(name).folder / "WORKLOG.md"
        yield name, page, page.read_text(encoding="utf-8"), clean[name]


def test_every_worklog_is_checked_within_its_time(copy: Path) -> None:
    started = time.process_time()
    check([])
    assert time.process_time() - started < LIMIT_SECONDS


def test_a_number_typed_into_a_generated_block_is_found(
    copy: Path, clean: dict[str, set[str]]
) -> None:
    for name, page, text, known in each_worklog(clean):
        for match in BLOCK.finditer(text):
            row = re.search(r"\| (\d[\d.,]*) \|", match["body"])
            if row:
                break
        else:
            pytest.fail(f"{page} has no block with a number")
        at = match.start("body") + row.start(1)
        context = text[at - 12 : at + len(row[1]) + 2]
        new = context.replace(f"| {row[1]} |", f"| {row[1]}7 |")
        position = text.index(context) + 12
        message = f"{page}:{line_of(text, position)}: block "
        more = damage(page, context, new, known, name)
        assert any(each.startswith(message) and "differs" in each for each in more), more


def test_a_stale_figure_is_found(copy: Path, clean: dict[str, set[str]]) -> None:
    drawn = 0
    for name, page, text, known in each_worklog(clean):
        for match in blocks_of(text):
            if match["name"] != "figure":
                continue
            drawn += 1
            file = page.parent / "figures" / f"{options_of(match)['name']}.svg"
            line = line_of(text, match.start())
            inputs = re.search(r"sha256:([0-9a-f]{64})", file.read_text())
            assert inputs
            older = damage(file, inputs[1], "0" * 64, known, name)
            assert older == {
                f"{page}:{line}: figure {file.name} is stale: it was drawn from other inputs; "
                "run worklog render"
            }
            edited = damage(file, "<rect ", '<rect rx="1" ', known, name)
            assert any("was edited by hand" in each for each in edited)
            away = file.rename(file.with_suffix(".gone"))
            assert any(f":{line}: figure {file.name} is not there" in e for e in found(name))
            away.rename(file)
    assert drawn


def test_a_prediction_changed_after_its_run_is_found(
    copy: Path, clean: dict[str, set[str]]
) -> None:
    changed = 0
    for name, page, _, known in each_worklog(clean):
        problem = load_problem(name)
        path = page.with_name("predictions.toml")
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        for place in problem.evidence.values():
            manifest = (problem.folder / place / "manifest.json").read_text()
            for sets in problem.predictions:
                if sets.sha256 not in manifest:
                    continue
                start = text.index(f'name = "{sets.name}"')
                high = re.compile(r"^high = .*$", re.MULTILINE).search(text, start)
                assert high
                new = text[: high.start()] + "high = 123456789" + text[high.end() :]
                more = damage(path, text, new, known, name)
                message = f"{path}:{line_of(text, start)}: set {sets.name} was changed after"
                assert any(each.startswith(message) for each in more), more
                changed += 1
                break
    assert changed


def test_a_claim_without_evidence_is_found(copy: Path, clean: dict[str, set[str]]) -> None:
    for name, page, _, known in each_worklog(clean):
        problem = load_problem(name)
        toml = page.with_name("problem.toml")
        text = toml.read_text(encoding="utf-8")
        variant = next(iter(problem.variants))
        phase = next(iter(problem.phases), "")
        unknown = 'figure("{0}", "no such figure")'
        if problem.phases:
            unknown = 'operator_share("{0}", "{1}", "no::such_operator")'
        bound = "== 0" if not problem.phases else ">= 0.5"
        claim = f"{unknown.format(variant, phase)} {bound}"
        first = text.index("[[claims]]")
        new = text[:first] + f"[[claims]]\nsays = \"new\"\nclaim = '{claim}'\n\n" + text[first:]
        more = damage(toml, text, new, known, name)
        message = f"{toml}:{line_of(text, first) + 2}: claim {claim} "
        assert any(each.startswith(message) for each in more), more
        words = next(each for each in more if each.startswith(message))
        assert "has no evidence" in words or "is contradicted by evidence" in words


def test_a_broken_link_is_found(copy: Path, clean: dict[str, set[str]]) -> None:
    for name, page, text, known in each_worklog(clean):
        at = text.index("## Question\n") + len("## Question\n")
        broken = [("`common/no_such_file.py`", "names common/no_such_file.py, which does not")]
        for target, says in (
            ("gone/away.md", "gone/away.md does not exist"),
            ("#no-such-heading", "this page has no heading #no-such-heading"),
            ("../../README.md#nowhere", "../../README.md has no heading #nowhere"),
            ("/home/somebody/x", "works on one machine only"),
        ):
            broken.append((f"[there]({target})", says))
        links = "".join(f"\n{link}" for link, _ in broken) + "\n"
        more = damage(page, text, text[:at] + links + text[at:], known, name)
        for number, (_, says) in enumerate(broken, 1):
            wanted = f"{page}:{line_of(text, at) + number}: "
            assert any(each.startswith(wanted) and says in each for each in more), more


def test_a_missing_section_is_found(copy: Path, clean: dict[str, set[str]]) -> None:
    for name, page, text, known in each_worklog(clean):
        for section in SECTIONS:
            after = SECTIONS[SECTIONS.index(section) + 1 :]
            position = text.index(f"\n## {after[0]}\n") if after else len(text)
            line = line_of(text, position) if after else line_of(text, position) - 1
            message = f"{page}:{line}: section '{section}' is missing"
            without = text.replace(f"\n## {section}\n", "\n", 1)
            missing = check_sections(page, without)
            assert any(str(each).startswith(message) for each in missing), missing
            if section == "Fix":
                more = damage(page, f"\n## {section}\n", "\n", known, name)
                assert any(each.startswith(message) for each in more), more


def test_a_wrong_answer_of_an_exercise_is_found(copy: Path, clean: dict[str, set[str]]) -> None:
    wrong = 0
    for name, page, text, known in each_worklog(clean):
        checks = [m for m in CHECK.finditer(text) if re.match(r"-?[\d.,]+ ", m["body"])]
        exercises = text.index("\n## Exercises\n")
        for match in [m for m in checks if text.rfind("<details>", 0, m.start()) > exercises][:1]:
            shown = match["body"].split(" ")[0]
            answer = text.rfind("<details>", 0, match.start())
            # The reader's text and what is compared say the same, and both are wrong.
            other = str(int(float(shown.replace(",", ""))) + 3)
            told = text[answer : match.start()].replace("</summary>", f"</summary>{other}. ", 1)
            checked = match.group(0).replace(f"check: {shown}", f"check: {other}", 1)
            new = text[:answer] + told + checked + text[match.end() :]
            more = damage(page, text, new, known, name)
            message = f"{page}:{line_of(text, match.start())}: the text says {other}, the evidence"
            assert any(each.startswith(message) for each in more), more
            wrong += 1
    assert wrong


def test_a_measured_number_typed_into_the_card_is_found(
    copy: Path, clean: dict[str, set[str]]
) -> None:
    typed = "\nIt takes 12.5 ms, 3 GB/s and 40 % of the bus.\n"
    for name, page, text, known in each_worklog(clean):
        new = text
        for section in ("Card", "Root cause", "Verification"):
            new = new.replace(f"## {section}\n", f"## {section}\n{typed}", 1)
        more = damage(page, text, new, known, name)
        for match in re.finditer(re.escape(typed.strip()), new):
            for number in ("12.5 ms", "3 GB/s", "40 %"):
                message = f"{page}:{line_of(new, match.start())}: {number!r} is typed by hand"
                assert any(each.startswith(message) for each in more), more


Damage = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    ("file", "spoil", "says", "line"),
    [
        ("problem.toml", lambda b: b.replace(b"[presets", b"[[presets", 1), "at line", None),
        ("problem.toml", lambda b: b + b"\n# \xff\n", "codec can't decode", -1),
        ("predictions.toml", lambda b: b + b'\n[[set]\nname = "x"\n', "at line", -2),
        ("WORKLOG.md", lambda b: b.decode().encode("utf-16"), "perhaps UTF-16", 1),
        ("WORKLOG.md", lambda b: b + "\nSchön".encode("latin-1") + b"\n", "is not UTF-8", -1),
    ],
)
def test_broken_files_are_findings_with_their_line(
    copy: Path, file: str, spoil: Damage, says: str, line: int | None
) -> None:
    name = problem_names()[0]
    path = load_problem(name).folder / file
    before = path.read_bytes()
    try:
        path.write_bytes(spoil(before))
        lines = path.read_bytes().count(b"\n")
        more = {str(finding) for finding in check([name])}
    finally:
        path.write_bytes(before)
    wanted = "" if line is None else f"{lines + 1 + line if line < 0 else line}: "
    hits = [each for each in more if each.startswith(f"{path}:{wanted}") and says in each]
    assert hits, more
    assert all("\n" not in each for each in hits)
    if "at line" in says:  # the reader's own line
        assert re.match(rf"{re.escape(str(path))}:(\d+): .*at line \1\b", hits[0])


def test_unknown_blocks_and_missing_evidence_are_found(
    copy: Path, clean: dict[str, set[str]]
) -> None:
    for name, page, text, known in each_worklog(clean):
        at = text.index("## Question\n") + len("## Question\n")
        blocks = (
            ("nonsense run=cpu", "unknown block 'nonsense'; there are: "),
            ("claims run=nowhere", "no evidence 'nowhere'; name one of"),
            ("figure name=x kind=y run=cpu", "unknown kind of figure 'y'"),
        )
        bodies = [f"\n<!-- worklog:{b} -->\n<!-- /worklog:{b.split()[0]} -->" for b, _ in blocks]
        more = damage(page, text, text[:at] + "".join(bodies) + "\n" + text[at:], known, name)
        for number, (_, says) in enumerate(blocks):
            wanted = f"{page}:{line_of(text, at) + 1 + 2 * number}: "
            assert any(e.startswith(wanted) and says in e for e in more), more
        problem = load_problem(name)
        key, place = next(iter(problem.evidence.items()))
        folder = problem.folder / place
        away = folder.rename(folder.with_name("away"))
        toml = page.with_name("problem.toml")
        more = found(name) - known
        away.rename(folder)
        line = toml.read_text().split(f'"{place}"')[0].count("\n") + 1
        assert any(e.startswith(f"{toml}:{line}: evidence {key}: ") for e in more), more
