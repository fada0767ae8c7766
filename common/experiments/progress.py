"""Where is it now? A progress bar on a terminal, plain lines elsewhere; always on stderr."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


TEXT_WIDTH = 34


class Reporter:
    """`with Reporter(title, total) as report: report.step("what happens now")`."""

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total = title, total
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._said = ""

    def __enter__(self) -> Reporter:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
            )

            self._progress = Progress(
                TextColumn("{task.fields[title]}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.description}", markup=False),
                console=Console(stderr=True),
            )
            self._progress.start()
            self._task = self._progress.add_task("", total=self.total, title=self.title)
        return self

    def step(self, text: str, advance: int = 1) -> None:
        """What was said before is done (`advance` units of it); `text` says what happens now."""
        if self._progress is not None and self._task is not None:
            done = advance if self._said else 0
            # The bar and the clock come first: they must not be cut off in a narrow terminal.
            self._progress.update(self._task, advance=done, description=text[:TEXT_WIDTH])
        elif text != self._said:
            # One line per change, so that the log of an unattended run stays readable.
            print(f"{self.title}: {text}", file=sys.stderr, flush=True)
        self._said = text

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
