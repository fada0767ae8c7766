"""Do the notebooks run without a GPU, and print what the committed ones hold?"""

from __future__ import annotations

import importlib.util
import resource
from pathlib import Path
from types import ModuleType

import pytest

nbformat = pytest.importorskip("nbformat")
ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("[0-9][0-9]_*.py"))
CPU_SECONDS = 25  # of each; all together must stay below 100


@pytest.fixture(scope="module")
def execute() -> ModuleType:
    spec = importlib.util.spec_from_file_location("execute_notebooks", FOLDER / "execute.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_is_a_notebook_on_reading_one_per_subject_and_one_on_floors() -> None:
    assert [name[:2] for name in NAMES] == ["00", "01", "02", "03", "04", "05"]
    assert all((FOLDER / f"{name}.ipynb").is_file() for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_execution_prints_what_the_committed_notebook_holds(
    name: str, execute: ModuleType
) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert execute.differences(name) == []
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert spent <= CPU_SECONDS


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_notebook_is_light_whole_and_has_a_conclusion(name: str) -> None:
    path = FOLDER / f"{name}.ipynb"
    assert path.stat().st_size <= 300_000
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code[0].metadata.tags == ["parameters"]
    outputs = [output for cell in code for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert any("image/png" in o.get("data", {}) for o in outputs)
    text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    for part in ("**Question.**", "## Conclusion", "**Try it:**"):
        assert part in text, part
    assert "Evidence:" in text or name.startswith("00")
    assert str(ROOT) not in path.read_text(encoding="utf-8")


def test_a_changed_output_and_a_changed_source_are_found(
    execute: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = NAMES[3]
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    monkeypatch.setattr(execute, "executed", lambda _: notebook.copy())
    changed = nbformat.from_dict(notebook)
    printed = next(c for c in changed.cells if c.cell_type == "code" and c.outputs)
    printed.outputs[0]["text"] = "something that was typed by hand\n"
    monkeypatch.setattr(execute, "executed", lambda _: changed)
    (found,) = execute.differences(name)
    assert "prints something else" in found
    changed.cells[0].source += " and more"
    (found,) = execute.differences(name)
    assert found.endswith(f"is not made from {name}.py")


def test_normalising_takes_places_and_colours_but_no_figures(execute: ModuleType) -> None:
    text = f"\x1b[31m{ROOT}/a 12.5 ms\x1b[0m   \nat 0x7f2a0c001b80\n"
    assert execute.normalised(text) == "./a 12.5 ms\nat 0x…"


def test_the_first_notebook_takes_the_readers_own_files(execute: ModuleType) -> None:
    kernels = "tests/data/compiled"
    parameters = (
        f'before, after = "{kernels}/winner_4090.json", "{kernels}/listed_4090.json"\n'
        'rows_by = "class"'
    )
    notebook = execute.executed(NAMES[0], parameters)
    printed = "\n".join(execute.texts(notebook))
    assert "winner_4090.json" in printed and "listed_4090.json" in printed
    assert "Largest row:" in printed


def test_an_unknown_notebook_is_refused_in_one_line(
    execute: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute.main(["--check", "99_absent"]) == 2
    assert capsys.readouterr().err.startswith("error: no notebook 99_absent; use 00_")
