"""Triton's own autotuner at work on GemLite's own kernels, recorded by torch.profiler on a CPU.

    python -m helpers.gemlite_tuning FOLDER      writes one trace per case of CASES

Launches do nothing and the stopwatch calls each of them a few times: what is real are the calls
around them, the clones that `restore_value` makes and puts back. Its times mean nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from problems.gemlite_autotune.described_device import DescriptionDriver, described
from problems.gemlite_autotune.devices import describe
from problems.gemlite_autotune.layers import Layer

CALLS_PER_CONFIGURATION = 3
# name -> (batch, whether the shipped table of winners is loaded)
CASES = {"table-1": (1, True), "tuned-1": (1, False), "tuned-8": (8, False)}


def stopwatch(call: Any, quantiles: Any) -> list[float]:
    for _ in range(CALLS_PER_CONFIGURATION):
        call()
    return [1.0, 1.0, 1.0]


def main(folder: Path) -> None:
    DescriptionDriver.get_benchmarker = lambda self: stopwatch  # type: ignore[method-assign]
    with described(describe("rtx-4090")):
        import torch
        from gemlite import core
        from triton.runtime.jit import JITFunction

        from common.recording.profilers import record_trace
        from problems.gemlite_autotune import gemlite_layers
        from problems.gemlite_autotune.launches import use_tables

        torch.set_num_threads(1)
        layer = Layer(4096, 4096, "a16w4", 128)
        made = gemlite_layers.gemlite_layer(layer)
        JITFunction.run = lambda self, *arguments, **keywords: None
        for name, (batch, shipped) in CASES.items():
            use_tables(shipped)
            for kernels in core.GEMLITE_TRITON_KERNELS:
                for kernel in kernels.kernel:
                    kernel.cache.clear()  # as in a fresh process
            x = gemlite_layers.batch(layer, batch)
            path = folder / f"{name}.json.gz"
            record_trace(path, torch.device("cpu"), lambda x=x: made.forward(x))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
