"""What does one variant of this problem give? Figures, tables and kernels, written for the run."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.recording.run_folder import write_json
from common.report import results
from common.traces.compiled_kernel import CompiledKernel


@dataclass
class Results(results.Results):
    kernels: dict[str, CompiledKernel] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)  # what the worklog's figures are drawn from

    def write(self, folder: Path) -> None:
        super().write(folder)
        if self.data:
            write_json(folder / "data.json", self.data)
        for name, kernel in self.kernels.items():
            place = folder / "kernels" / f"{name}.json.gz"
            place.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(kernel.to_json(), indent=1) + "\n"
            place.write_bytes(gzip.compress(text.encode(), mtime=0))


def file_name(text: str) -> str:
    return text.lower().replace(" ", "-").replace("/", "-")
