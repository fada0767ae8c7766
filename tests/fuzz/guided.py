"""What do the readers do with bytes that were chosen for the code they reach? Guided by coverage.

    pip install -r requirements-fuzz.txt        (atheris, for developers: no check here needs it)
    python tests/fuzz/guided.py --cpu-seconds 300 --out RESULT.json [--reader torch …]

libFuzzer mutates a corpus (our own good files, slices of the real ones, cases of `cases.py`), keeps
what reaches new branches of `common`, and every input must be read or refused as `oracle.py`
says: in one line that ends in an action, within ten seconds and 600 MiB. Each reader is called by
itself, whatever a mutation did to the first bytes. What C code does (SQLite, zlib) is run but not
seen by the coverage. A fault does not end the run: its input is kept in --faults.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

READERS = {
    "torch": "common.traces.torch_trace:read_torch_trace",
    "nsys": "common.traces.nsys:read_nsys",
    "memory": "common.traces.memory_snapshot:read_memory_snapshot",
    "ncu": "common.traces.ncu:read_ncu",
    "compiled": "common.traces.compiled_kernel:read_compiled",
    "run": "",
}
LONGEST_S, LARGEST_MIB, LONGEST_BYTES = 10, 600, 48 << 10
CASES_IN_CORPUS, OWN_MUTATIONS = 80, 0.3
_STATUS = re.compile(r"cov: (\d+) ft: (\d+) corp: (\d+)")


def work(
    reader: str, cpu_seconds: float, corpus: Path, state: Path, faults: Path, seed: int
) -> None:
    """Runs in a process of its own until its CPU time is used up; `state` says how far it came."""
    import atheris

    with atheris.instrument_imports(include=["common"]):
        import common.report.show
        import common.traces.compiled_kernel
        import common.traces.formats
        import common.traces.memory_snapshot
        import common.traces.memory_summary
        import common.traces.ncu
        import common.traces.nsys
        import common.traces.summary
        import common.traces.torch_trace  # noqa: F401
        from common.errors import WorklogError
        from common.recording.run_folder import open_run
        from common.report.show import PAGES
        from common.traces.formats import _function, known_formats
    from fuzz.byte_changes import damaged
    from fuzz.oracle import Fault, _closes, _terminal, check_refusal

    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="worklog-guided-", dir=shared))
    path = folder / "case"
    formats = {found.name: found for found in known_formats()}
    held = json.loads(state.read_text()) if state.exists() else {"executions": 0, "cpu_s": 0.0}
    counts = {"executions": held["executions"], "read": held.get("read", 0)}
    before = held["cpu_s"]
    seen: set[str] = set(held.get("faults", {}))
    said: dict[str, str] = dict(held.get("faults", {}))

    def read(data: bytes) -> None:
        if reader == "run":
            manifest, _, samples = data.partition(b"\0")
            (folder / "manifest.json").write_bytes(manifest)
            (folder / "samples.jsonl").write_bytes(samples)
            open_run(folder).samples()
            return
        path.write_bytes(data)
        found = formats[reader]
        content = _function(READERS[reader])(path)
        summary = _function(found.summarise)(content, path)
        _closes(content, summary)
        if counts["executions"] % 40 == 0:
            _terminal(PAGES[found.kind](summary), "show")
            json.dumps(summary)

    def one(data: bytes) -> None:
        counts["executions"] += 1
        try:
            read(data)
            counts["read"] += 1
        except WorklogError as error:
            try:
                check_refusal(str(error))
            except Fault as fault:
                note(str(fault), data)
        except Exception as error:
            place = error.__traceback__
            while place is not None and place.tb_next is not None:
                place = place.tb_next
            at = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else ""
            note(f"{type(error).__name__} at {Path(at).name}: {str(error)[:200]}", data)
        if counts["executions"] % 64 == 0 and before + time.process_time() > cpu_seconds:
            keep()
            os._exit(0)
        if counts["executions"] % 4096 == 0:
            keep()

    def note(fault: str, data: bytes) -> None:
        kind = re.sub(r"\d+", "#", fault)[:120]
        if kind not in seen:
            seen.add(kind)
            digest = hashlib.sha256(data).hexdigest()[:16]
            (faults / f"{reader}-{digest}").write_bytes(data)
            said[kind] = f"{digest}: {fault}"
            keep()

    def keep() -> None:
        spent = round(before + time.process_time(), 1)
        state.write_text(json.dumps({**counts, "cpu_s": spent, "faults": said}))

    def mutated(data: bytes, most: int, number: int) -> bytes:
        draw = random.Random(number)
        if data and draw.random() < OWN_MUTATIONS:
            return damaged(draw, data)[0][:most]
        return bytes(atheris.Mutate(data, most))

    options = [
        "guided", str(corpus), f"-seed={seed}", f"-timeout={LONGEST_S}",
        f"-rss_limit_mb={LARGEST_MIB}", f"-max_len={LONGEST_BYTES}", f"-artifact_prefix={faults}/",
        "-len_control=0", "-detect_leaks=0",
    ]  # fmt: skip
    atheris.Setup(options, one, custom_mutator=mutated)
    atheris.Fuzz()


def seeds_of(reader: str) -> list[bytes]:
    """Good files, slices of real ones, and cases of the structured fuzz."""
    from fuzz.cases import GOOD, make
    from fuzz.long_run import real_seeds
    from fuzz.text_cases import DETAILS_BYTES, compiled_document

    if reader == "run":
        run = ROOT / "tests/data/run_tiny"
        head = (run / "samples.jsonl").read_bytes()[:2000]
        return [(run / "manifest.json").read_bytes() + b"\0" + head, b'{"schema": 1}\0{}\n']
    real = [one for one in real_seeds() if one.format == reader]
    own = {"ncu": [DETAILS_BYTES], "compiled": [json.dumps(compiled_document()).encode()]}
    cases = [make(5, number, reader, real).data for number in range(CASES_IN_CORPUS)]
    good = [GOOD[reader]] if reader in GOOD else []
    return [*good, *own.get(reader, []), *(one.data for one in real), *cases]


def run(reader: str, cpu_seconds: float, faults: Path, seed: int) -> dict[str, Any]:
    """One reader: executions, CPU seconds, coverage and faults."""
    with tempfile.TemporaryDirectory(prefix="worklog-guided-") as folder:
        corpus, state = Path(folder) / "corpus", Path(folder) / "state.json"
        corpus.mkdir()
        for number, data in enumerate(seeds_of(reader)):
            (corpus / f"seed-{number}").write_bytes(data[:LONGEST_BYTES])
        seeds = len(list(corpus.iterdir()))
        coverage, killed = (0, 0, 0), []
        for attempt in range(20):
            own = [sys.executable, __file__, "--worker", reader, str(corpus), str(state)]
            own += ["--cpu-seconds", str(cpu_seconds), "--faults", str(faults)]
            done = subprocess.run(
                [*own, "--seed", str(seed + attempt)], check=False, stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL, text=True, errors="replace",
            )  # fmt: skip
            for found in _STATUS.finditer(done.stderr):
                coverage = max(coverage, tuple(map(int, found.groups())))
            if done.returncode == 0:
                break
            killed.append(f"exit code {done.returncode}: {done.stderr.strip()[-300:]}")
            if not state.exists():
                sys.exit(f"the harness itself failed:\n{done.stderr[-2000:]}")
        held = json.loads(state.read_text())
    return {
        "executions": held["executions"], "read": held["read"], "cpu_s": held["cpu_s"],
        "edges": coverage[0], "features": coverage[1], "corpus": coverage[2], "seeds": seeds,
        "faults": sorted(held["faults"].values()), "killed": killed,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reader", action="append", choices=READERS)
    parser.add_argument("--cpu-seconds", type=float, default=300.0, help="for each reader")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--faults", type=Path, default=Path("guided-faults"))
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        parser.error("atheris is not installed; pip install -r requirements-fuzz.txt")
    given.faults.mkdir(parents=True, exist_ok=True)
    if given.worker:
        reader, corpus, state = given.worker
        work(reader, given.cpu_seconds, Path(corpus), Path(state), given.faults, given.seed)
        return 0
    from fuzz.long_run import machine, real_seeds

    total: dict[str, Any] = {
        "guided": {}, "seed": given.seed, "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "python": sys.version.split()[0], "machine": machine(),
        "real_files": {one.name: one.sha256 for one in real_seeds()},
    }  # fmt: skip
    for reader in given.reader or READERS:
        total["guided"][reader] = run(reader, given.cpu_seconds, given.faults, given.seed)
        print(reader, total["guided"][reader], file=sys.stderr, flush=True)
        if given.out is not None:
            given.out.write_text(json.dumps(total, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(total, indent=1))
    found = total["guided"].values()
    return 1 if any(one["faults"] or one["killed"] for one in found) else 0


if __name__ == "__main__":
    sys.exit(main())
