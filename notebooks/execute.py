"""Do the notebooks still say what their evidence says? Executes them and writes, or compares.

    python notebooks/execute.py [NAME …]            execute and write the paired .ipynb
    python notebooks/execute.py --check [NAME …]    execute and compare the text outputs

The reviewed source of a notebook is its `.py` (jupytext, percent format); the `.ipynb` beside it is
made from that and holds the outputs. Needs requirements-dev.txt, no GPU and no network.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from traitlets.config import Config

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SECONDS = 120  # of one cell, on a busy machine
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
    "jupytext": {"formats": "ipynb,py:percent"},
}


def names() -> list[str]:
    """The notebooks by the stems of their sources, in their order."""
    return sorted(path.stem for path in HERE.glob("[0-9][0-9]_*.py"))


def executed(name: str, parameters: str = "") -> NotebookNode:
    """The notebook made from its source and run; `parameters` is code that follows its own.

    Raises CellExecutionError with the traceback of a cell that fails.
    """
    notebook = jupytext.read(HERE / f"{name}.py")
    if parameters:
        cell = nbformat.v4.new_code_cell(parameters)
        notebook.cells.insert(_parameters_at(notebook) + 1, cell)
    where = {"metadata": {"path": str(ROOT)}}
    with tempfile.TemporaryDirectory() as own:  # else two that run at once share their sockets
        sockets = {"transport": "ipc", "ip": f"{own}/kernel"}  # no port is opened
        settings = Config({"KernelManager": sockets})
        NotebookClient(notebook, config=settings, timeout=SECONDS, resources=where).execute()
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02d}"
        cell.metadata.pop("execution", None)
        cell["outputs"] = [_light(output) for output in cell.get("outputs", [])]
        if cell.cell_type != "code":
            del cell["outputs"]
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat_minor = 5
    return notebook


def _parameters_at(notebook: NotebookNode) -> int:
    return next(
        n for n, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ())
    )


def _light(output: NotebookNode) -> NotebookNode:
    """An output without what differs from machine to machine and says nothing."""
    output.pop("execution_count", None)
    if output.output_type == "execute_result":
        output["execution_count"] = None
    return output


def texts(notebook: NotebookNode) -> list[str]:
    """What each code cell printed, normalised: no colours, no addresses, no places of a machine."""
    return [
        normalised("".join(_text(output) for output in cell.outputs))
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def _text(output: NotebookNode) -> str:
    if output.output_type == "stream":
        return str(output.text)
    if output.output_type == "error":
        return f"{output.ename}: {output.evalue}\n"
    return str(output.get("data", {}).get("text/plain", ""))


def normalised(text: str) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    text = text.replace(str(ROOT), ".")
    text = re.sub(r"0x[0-9a-f]{6,}", "0x…", text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def differences(name: str) -> list[str]:
    """Where a fresh execution prints something else than the committed notebook holds."""
    committed = nbformat.read(HERE / f"{name}.ipynb", as_version=4)
    fresh = executed(name)
    if [c.source for c in committed.cells] != [c.source for c in fresh.cells]:
        return [f"notebooks/{name}.ipynb is not made from {name}.py"]
    found = []
    for number, (was, now) in enumerate(zip(texts(committed), texts(fresh), strict=True)):
        if was != now:
            found.append(f"notebooks/{name}.ipynb: code cell {number} prints something else")
    return found


def write(name: str) -> Path:
    path = HERE / f"{name}.ipynb"
    text = nbformat.writes(executed(name), version=nbformat.NO_CONVERT)
    path.write_text(text.replace(str(ROOT), ".") + "\n", encoding="utf-8")
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Execute the notebooks.")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(names())}")
    wanted = parser.parse_args(arguments)
    unknown = sorted(set(wanted.names) - set(names()))
    if unknown:
        print(f"error: no notebook {unknown[0]}; use {', '.join(names())}", file=sys.stderr)
        return 2
    wrong: list[str] = []
    for name in wanted.names or names():
        try:
            if wanted.check:
                wrong += differences(name)
            else:
                print(f"wrote {write(name).relative_to(ROOT)}")
        except CellExecutionError as error:
            last = normalised(str(error)).strip().splitlines()[-1]
            wrong.append(f"notebooks/{name}.py does not run ({last})")
    for line in wrong:
        print(f"{line}; mend it, then: python notebooks/execute.py")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
