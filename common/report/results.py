"""What does a variant that works out its own figures hand over? Figures, tables and charts.

`figures.json` holds what claims and predictions ask for, `tables.json` what the worklog shows,
`charts/` one SVG per chart; each figure says where it comes from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.recording.run_folder import write_json, write_text
from common.report.tables import Table


@dataclass
class Results:
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    charts: dict[str, str] = field(default_factory=dict)

    def figure(
        self,
        name: str,
        value: float | None,
        unit: str,
        origin: str,
        interval: tuple[float, float] | None = None,
    ) -> None:
        """`origin`: measured-gpu, measured-cpu, compiled, modelled or published."""
        self.figures[name] = {"value": value, "unit": unit, "origin": origin}
        if interval is not None:
            self.figures[name]["interval"] = list(interval)

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
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
        for name, chart in self.charts.items():
            place = folder / "charts" / f"{name}.svg"
            place.parent.mkdir(parents=True, exist_ok=True)
            write_text(place, chart)
