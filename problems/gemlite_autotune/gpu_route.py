"""What does the autotuner really choose on this GPU? Every configuration's time, as Triton saw it.

Tunes after `reset_config()`, so that no shipped row answers, in each of GemLite's modes, and keeps
what Triton's listener says of every configuration. The listener is silent where one configuration
is left (a table hit, or a list of one): so route, table and list are written down apart from it, by
asking GemLite. The times are the tuner's own: around GEMV_REVSPLITK it clones and restores the
weights inside each timed call, which is measured by tuning once more without (`restore`).
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from problems.gemlite_autotune.layers import Layer
from problems.gemlite_autotune.numerics import quantised

SCHEMA = "worklog.gemlite-tuning/1"
Record = dict[str, Any]


def listener_record(
    fn: Any, key: Any, best_config: Any, configs_timings: Any, duration: Any, cache_hit: Any
) -> Record:
    """What Triton's autotune listener was told, as JSON: times in ms (median, 20 %, 80 %).

    A configuration that could not run has the time None: Triton scores it as infinite.
    """
    timings = []
    for config, times in configs_timings.items():
        values = [float(time) for time in (times if isinstance(times, Sequence) else [times])]
        finite = [value if math.isfinite(value) else None for value in values]
        timings.append({"values": dict(config.all_kwargs()), "ms": finite})
    return {
        "kernel": str(fn.__name__),
        "key": [str(part) for part in key],
        "best": dict(best_config.all_kwargs()),
        "timings": timings,
        "duration_seconds": duration,
        "cache_hit": bool(cache_hit),
    }


@contextlib.contextmanager
def observed() -> Iterator[Record]:
    """Within the block: which autotuner ran, what its pruner left, what its listener heard.

    `{"kernel", "asked_pruner", "left": [values, …], "tuned_before", "launched": values, "heard"}`
    of the last forward; the keys are there once it ran. A Triton before 3.8 has no listener: there
    "heard" is what its autotuner keeps of the tuning.
    """
    from triton import knobs
    from triton.runtime.autotuner import Autotuner

    seen: Record = {}
    run, prune = Autotuner.run, Autotuner.prune_configs
    has_listener = hasattr(knobs.autotuning, "listener")
    before = knobs.autotuning.listener if has_listener else None

    def observed_prune(self: Any, keywords: Mapping[str, Any]) -> Any:
        found = prune(self, keywords)
        seen["asked_pruner"], seen["left"] = True, [dict(c.all_kwargs()) for c in found]
        return found

    def observed_run(self: Any, *arguments: Any, **keywords: Any) -> Any:
        seen.clear()
        seen.update(
            kernel=self.base_fn.__name__, asked_pruner=False, heard=None,
            tuned_before=len(self.cache),
        )  # fmt: skip
        result = run(self, *arguments, **keywords)
        seen["launched"] = dict(self.best_config.all_kwargs())
        if not has_listener and len(self.cache) > seen["tuned_before"]:
            seen["heard"] = listener_record(
                self.base_fn, next(reversed(self.cache)), self.best_config,
                self.configs_timings, getattr(self, "bench_time", None), False,
            )  # fmt: skip
        return result

    def hear(**said: Any) -> None:
        seen["heard"] = listener_record(**said)
        if before is not None:
            before(**said)

    Autotuner.run, Autotuner.prune_configs = observed_run, observed_prune
    if has_listener:
        knobs.autotuning.listener = hear
    try:
        yield seen
    finally:
        Autotuner.run, Autotuner.prune_configs = run, prune
        if has_listener:
            knobs.autotuning.listener = before


def forget_tuning() -> None:
    """As in a fresh process: nothing was tuned."""
    from gemlite import core

    for kernels in core.GEMLITE_TRITON_KERNELS:
        for kernel in kernels.kernel:
            kernel.cache.clear()


@contextlib.contextmanager
def without_restoring(family: str) -> Iterator[bool]:
    """The family's tuner without its clones and copies; yields whether it had any."""
    from gemlite import core

    tuners = core.GEMLITE_TRITON_MAPPING[family].kernel
    before = [(tuner.pre_hook, tuner.post_hook) for tuner in tuners]
    had = any(tuner.restore_value for tuner in tuners)
    for tuner in tuners:
        if tuner.restore_value:
            tuner.pre_hook = lambda values, reset_only=False: 0
            tuner.post_hook = lambda values, exception: 0
    try:
        yield had
    finally:
        for tuner, (pre, post) in zip(tuners, before, strict=True):
            tuner.pre_hook, tuner.post_hook = pre, post


def record_tuning(
    layer: Layer,
    batches: Sequence[int],
    modes: Sequence[str],
    device: str = "cuda",
    folder: Path | None = None,
) -> Record:
    """Tune every batch in every mode on the device that is here.

    `{"schema", "layer", "batches": {m: {"route", "shipped", "modes": {mode: seen}, "restore"?}}}`;
    in `folder` also line by line in `tuning.jsonl`, as it is measured.
    """
    import torch
    from gemlite import core

    from problems.gemlite_autotune.launches import use_tables

    made, _ = quantised(layer, device=device)
    dtype = torch.float16 if layer.activation == "fp16" else torch.bfloat16

    def forward(m: int) -> Record:
        forget_tuning()
        with observed() as seen:
            made(torch.randn((m, layer.k), device=device).to(dtype))
            if device == "cuda":
                torch.cuda.synchronize()
        return dict(seen)

    def keep(m: int, what: str, mode: str, seen: Record) -> Record:
        if folder is not None:
            line = json.dumps({"m": m, "what": what, "mode": mode, **seen})
            with (folder / "tuning.jsonl").open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
        return seen

    made.forward = made.forward_auto_no_warmup
    found: dict[str, Record] = {}
    use_tables(shipped=True)
    for m in batches:
        weights = layer.weights
        family = core.get_matmul_type(m, weights.bits, weights.microscaling)
        key = str(layer.key(m))
        table = core.GEMLITE_TRITON_CONFIG_CACHE.get(family, {})
        route = {"family": family, "key": key, "in_table": key in table}
        found[str(m)] = {"route": route, "modes": {}}
        if route["in_table"]:  # what a user of this GPU gets: one launch and no benchmark
            found[str(m)]["shipped"] = keep(m, "shipped", "fast", forward(m))
    for mode in modes:
        use_tables(shipped=False, mode=mode)
        for m in batches:
            found[str(m)]["modes"][mode] = keep(m, "tuned", mode, forward(m))
            if mode != "fast":
                continue
            with without_restoring(found[str(m)]["route"]["family"]) as had:
                if had:
                    found[str(m)]["restore"] = keep(m, "without restoring", mode, forward(m))
    return {"schema": SCHEMA, "layer": str(layer), "batches": found}
