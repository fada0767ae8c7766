"""What does one variant of this problem give? Figures, tables and files, written for the run.

`figures.json` holds what claims ask for, `tables.json` what the worklog shows; both with origins.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.recording.run_folder import write_json
from common.report.tables import Table
from common.traces.compiled_kernel import CompiledKernel


@dataclass
class Results:
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    kernels: dict[str, CompiledKernel] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)  # what the worklog's figures are drawn from

    def figure(self, name: str, value: float | None, unit: str, origin: str) -> None:
        """`origin`: compiled, modelled, published, or measured-cpu."""
        self.figures[name] = {"value": value, "unit": unit, "origin": origin}

    def write(self, folder: Path) -> None:
        write_json(folder / "figures.json", self.figures)
        tables = {
            name: {
                "columns": list(table.columns),
                "rows": [list(row) for row in table.rows],
                "right": list(table.right),
                "note": table.note,
            }
            for name, table in self.tables.items()
        }
        write_json(folder / "tables.json", tables)
        if self.data:
            write_json(folder / "data.json", self.data)
        for name, kernel in self.kernels.items():
            place = folder / "kernels" / f"{name}.json.gz"
            place.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(kernel.to_json(), indent=1) + "\n"
            place.write_bytes(gzip.compress(text.encode(), mtime=0))


def file_name(text: str) -> str:
    return text.lower().replace(" ", "-").replace("/", "-")
