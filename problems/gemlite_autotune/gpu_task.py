"""What a variant does on a GPU: tune and compare sides, or launch one side for a profiler."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import PreconditionError
from problems.gemlite_autotune.devices import GpuDescription, describe
from problems.gemlite_autotune.gpu_results import MAIN_MODE, medians, tuning_results
from problems.gemlite_autotune.gpu_route import record_tuning
from problems.gemlite_autotune.gpu_sides import (
    DEFAULT,
    SHIPPED,
    STATIC,
    TUNED,
    default_config,
    launch,
    measure_sides,
    shipped_config,
    static_choice,
)
from problems.gemlite_autotune.layers import Layer
from problems.gemlite_autotune.results import Results
from problems.gemlite_autotune.routes import family_for
from problems.gemlite_autotune.shipped_tables import Config, installed_version, shipped_tables

LAUNCHES = 30  # in a profiler's range


def this_gpu() -> GpuDescription:
    import torch

    return describe(torch.cuda.get_device_name())


def family_of(layer: Layer, m: int) -> str:
    return family_for(m, layer.weights.bits, layer.weights.microscaling)


def tuned_config(document: Mapping[str, Any], m: int) -> Config | None:
    """The fastest of the default list; None where nothing was benchmarked."""
    seen = document["batches"][str(m)]["modes"].get(MAIN_MODE)
    times = medians(seen["heard"]) if seen and seen["heard"] else {}
    return min(times, key=lambda config: times[config]) if times else None


def tune_task(
    layer: Layer, settings: Mapping[str, Any], folder: Path | None, compare: bool = True
) -> Results:
    """Every batch tuned in every mode of the preset, then the sides compared.

    With `compare` False: another Triton; figures are named by its version, sides are left out.
    """
    batches = [int(m) for m in settings["batches"]]
    modes = list(settings.get("tuned_modes", [settings["mode"]]))
    document = record_tuning(layer, batches, modes, folder=folder)
    if compare and MAIN_MODE in modes:
        gpu = this_gpu()
        for m in batches:
            configs = chosen_configs(layer, m, gpu, tuned_config(document, m))
            sides = measure_sides(layer, m, family_of(layer, m), configs, gpu)
            document["batches"][str(m)]["sides"] = sides
    if folder is not None:
        (folder / "tuning.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    version = ".".join(installed_version("triton").split(".")[:2])
    return tuning_results(document, "" if compare else f"triton-{version}_")


def chosen_configs(
    layer: Layer, m: int, gpu: GpuDescription, tuned: Config | None
) -> dict[str, Config]:
    """The sides that there are: default always, the others where there is one."""
    found: dict[str, Config | None] = {
        DEFAULT: default_config(gpu, layer, m, family_of(layer, m)),
        SHIPPED: shipped_config(gpu, layer, m, shipped_tables()),
        TUNED: tuned,
        STATIC: static_choice(gpu, layer, m),
    }
    return {name: config for name, config in found.items() if config is not None}


def launch_task(layer: Layer, m: int, choice: str) -> Results:
    """One side, launched for a profiler. What must be tuned first is tuned before the range."""
    gpu = this_gpu()
    config: Config | None = None
    if choice == DEFAULT:
        config = default_config(gpu, layer, m, family_of(layer, m))
    elif choice == SHIPPED:
        config = shipped_config(gpu, layer, m, shipped_tables())
    elif choice == TUNED:
        config = tuned_config(record_tuning(layer, [m], [MAIN_MODE]), m)
    if config is None:
        raise PreconditionError(
            f"there is no {choice} configuration of {layer} for {m} rows on {gpu.name}; "
            "choose another --variant"
        )
    launch(layer, m, family_of(layer, m), config, LAUNCHES)
    results = Results()
    results.figure(f"m{m}_launches", LAUNCHES, str(config), "measured-gpu")
    return results
