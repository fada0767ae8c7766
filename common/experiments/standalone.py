"""How does a problem's `repro.py` run by itself? One variant in this very process, few options."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

from common.errors import WorklogError
from common.experiments.request import compile_cache, package_folders, settle
from common.recording.ranges import TRACED
from common.timing.worker import load_repro


def run_standalone(repro: Path, description: str | None) -> None:
    """The command line of `repro.py`: prints each phase's median, then one JSON line."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", help="one of problem.toml's variants (default: the baseline)")
    parser.add_argument("--preset", help="one of problem.toml's presets (default: what fits here)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--repetitions", type=int, default=10, help="samples taken (default: 10)")
    parser.add_argument("--compile-prefill", action="store_true", help="compile prefill too")
    parser.add_argument("--checkpoint", help="folder of a Hugging Face Llama checkpoint")
    arguments = parser.parse_args()
    if arguments.repetitions < 1:
        parser.error("--repetitions must be 1 or more")
    try:
        print(json.dumps(_measure(repro, arguments)))
    except WorklogError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def run_worked_out(repro: Path, description: str | None) -> None:
    """The command line of a `repro.py` that is not timed: prints its tables, then one JSON line.

    Its session gives `results()`, a `common.report.results.Results`.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", help="one of problem.toml's variants (default: the baseline)")
    parser.add_argument("--preset", default="tiny", help="one of problem.toml's presets")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--repetitions", type=int, default=1, help="how often it is worked out")
    arguments = parser.parse_args()
    if arguments.repetitions < 1:
        parser.error("--repetitions must be 1 or more")
    wanted = [arguments.variant] if arguments.variant else []
    try:
        request = settle(repro.parent.name, arguments.preset, wanted, arguments.device)
        name = arguments.variant or request.problem.baseline
        variant = next(v for v in request.variants if v.name == name)
        sys.path[:0] = map(str, package_folders(variant))
        os.environ.update(variant.environment)
        session: Any = load_repro(repro).open_session(
            dict(variant.settings), dict(request.preset.settings), request.device, {}
        )
        facts = session.prepare()
        for _ in range(arguments.repetitions):
            found = session.results()
    except WorklogError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    for title, table in found.tables.items():
        print(f"{title}\n\n{table.text()}\n")
    print(json.dumps({"variant": name, "facts": facts, "figures": found.figures}))


def _measure(repro: Path, arguments: argparse.Namespace) -> dict[str, object]:
    options = {"compile_prefill": arguments.compile_prefill, "checkpoint": arguments.checkpoint}
    wanted = [arguments.variant] if arguments.variant else []
    request = settle(repro.parent.name, arguments.preset, wanted, arguments.device, None, options)
    name = arguments.variant or request.problem.baseline
    variant = next(v for v in request.variants if v.name == name)
    if any(os.environ.get(key) != value for key, value in variant.environment.items()):
        # Some of it (glibc's tunables) is read only when a process starts: start anew with it.
        os.environ.update(variant.environment)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(compile_cache(variant)))
    for folder in reversed(package_folders(variant)):
        sys.path.insert(0, str(folder))
    session = load_repro(repro).open_session(
        dict(variant.settings), dict(request.preset.settings), request.device, options
    )
    facts = session.prepare()
    samples = [session.sample() for _ in range(arguments.repetitions)]
    medians = {}
    for phase, key in request.problem.phases.items():
        units = int(request.preset.settings[key]) if key else 1
        medians[phase] = statistics.median(s[phase] for s in samples) / units
        print(f"{name} {phase}: {medians[phase] / 1e6:.3f} ms ({len(samples)} samples)")
    return {
        "variant": name,
        "preset": request.preset.name,
        "device": request.device,
        "median_ns": medians,
        "samples_ns": samples,
        "nvtx": TRACED,
        "facts": facts,
    }
