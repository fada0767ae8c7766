"""A worker that works long says how far it is, and its silence is what counts as hanging."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.timing.worker_client import Worker, WorkerFailed

REPRO = """
import time
class Session:
    progress = None
    def needs_bytes(self): return 1
    def prepare(self): return {}
    def profile(self, folder):
        for number in range(4):
            time.sleep(0.5)
            self.progress(f"{number} done")
        if folder.name == "stuck":
            time.sleep(60)
        return {"facts": 1}
def open_session(variant, preset, device, options): return Session()
"""


def opened(folder: Path) -> Worker:
    repro = folder / "repro.py"
    repro.write_text(REPRO)
    worker = Worker("one", repro, [], {}, folder / "log")
    worker.request("open", 60, variant={}, preset={}, device="cpu", options={})
    return worker


def test_progress_is_heard_and_restarts_the_patience(tmp_path: Path) -> None:
    worker, heard = opened(tmp_path), list[str]()
    # Two seconds of work with less patience than that, but more than one step's.
    found = worker.request("profile", 1.8, on_progress=heard.append, folder=str(tmp_path))
    worker.close()
    assert heard == ["0 done", "1 done", "2 done", "3 done"]
    assert found["facts"] == {"facts": 1}


def test_a_worker_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    worker = opened(tmp_path)
    with pytest.raises(WorkerFailed, match="no answer in time"):
        worker.request("profile", 1.8, folder=str(tmp_path / "stuck"))
