"""What exactly is to be run? The command line's wishes, settled against this machine."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from common.contract.problem import (
    Preset,
    Problem,
    Variant,
    choose_preset,
    choose_variants,
    load_problem,
    root,
)
from common.errors import PreconditionError, UsageError
from common.floors.traffic import bytes_per_weight
from common.memory import memory_available_bytes
from common.recording.environment import (
    Machine,
    compiler_version,
    device_slug,
    package_version,
    read_machine,
)


@dataclass(frozen=True)
class Request:
    """One experiment: every choice made, nothing left to default later."""

    problem: Problem
    preset: Preset
    device: str  # "cpu" or "cuda"
    variants: tuple[Variant, ...]
    not_applicable: Mapping[str, str]  # variant -> why it cannot run here
    machine: Machine
    out: Path
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def device_slug(self) -> str:
        return device_slug(self.machine, self.device)

    @property
    def run_parent(self) -> Path:
        return self.out / self.problem.name / self.device_slug


def settle(
    problem_name: str,
    preset: str | None = None,
    variants: Sequence[str] = (),
    device: str = "auto",
    out: Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> Request:
    """Turn wishes into a Request. Raises UsageError or PreconditionError before any work."""
    problem = load_problem(problem_name)
    checkpoint = (options or {}).get("checkpoint")
    if checkpoint and not (Path(checkpoint) / "config.json").is_file():
        raise UsageError(f"{checkpoint} holds no config.json; give the folder of a checkpoint")
    chosen = choose_variants(problem, list(variants))
    machine = read_machine()
    device = choose_device(device, machine)
    size = choose_preset(problem, preset, device, device_bytes(machine, device))
    if device == "cpu" and problem.kind == "timed" and compiler_version() is None:
        raise PreconditionError(
            "torch.compile needs a C++ compiler on a CPU and there is none; "
            "install one (on Debian or Ubuntu: apt-get install g++)"
        )
    capability = max(map(_capability, machine.gpus), default=0.0)
    missing: dict[str, str] = {}
    for variant in chosen:
        needed = variant.needs_cuda_capability
        if needed is not None and (device != "cuda" or capability < needed):
            here = "a CPU" if device != "cuda" else f"a GPU of compute capability {capability}"
            missing[variant.name] = f"needs a GPU of compute capability {needed}, this is {here}"
    runnable = tuple(variant for variant in chosen if variant.name not in missing)
    if variants and all(name in missing for name in variants):
        reason = missing[variants[0]]
        raise PreconditionError(f"{variants[0]} {reason}; choose another variant")
    for variant in runnable:
        package_folders(variant)
        for path in variant.traffic.values():
            bytes_per_weight(path)  # a name that is none must not show after the run
    return Request(
        problem,
        size,
        device,
        runnable,
        missing,
        machine,
        (out or root() / "results").absolute(),
        dict(options or {}),
    )


def limited(request: Request, study: str) -> Request:
    """The request with the settings that problem.toml gives the study, and no limit above its.

    What [studies.NAME.presets.PRESET] says holds at that preset, be it more than the preset's own:
    a study is a command by itself, and some ratios need more rounds than a first run has time for.
    """
    limits, preset = dict(request.problem.study_limits.get(study, {})), request.preset
    here = limits.get("presets", {}).get(preset.name, {})
    rounds = min(preset.max_rounds, limits.get("max_rounds", preset.max_rounds))
    seconds = min(preset.max_seconds, limits.get("max_seconds", preset.max_seconds))
    return replace(
        request,
        preset=replace(
            preset,
            settings={
                **preset.settings,
                **limits.get("settings", {}),
                **here.get("settings", {}),
            },
            max_rounds=here.get("max_rounds", rounds),
            max_seconds=here.get("max_seconds", seconds),
        ),
    )


def _capability(gpu: Mapping[str, str]) -> float:
    try:
        return float(gpu.get("compute_cap", 0))
    except ValueError:  # "[N/A]" where the driver does not say
        return 0.0


def choose_device(wanted: str, machine: Machine) -> str:
    version = package_version("torch")
    if version is None:
        raise PreconditionError("torch is not installed here; run ./run.sh setup")
    usable = bool(machine.gpus) and not version.endswith("+cpu")
    if wanted == "auto":
        return "cuda" if usable else "cpu"
    if wanted == "cuda" and not machine.gpus:
        raise PreconditionError("nvidia-smi lists no GPU here; use --device cpu")
    if wanted == "cuda" and not usable:
        raise PreconditionError(
            f"torch {version} is a CPU build; remove .venv and run ./run.sh setup on this machine"
        )
    if wanted not in ("cpu", "cuda"):
        raise UsageError(f"no device {wanted!r}; use auto, cpu or cuda")
    return wanted


def device_bytes(machine: Machine, device: str) -> int:
    """Memory that a run may count on: the GPU's own, or what the host has available now."""
    if device == "cpu":
        return memory_available_bytes() or 0
    stated = machine.gpus[0].get("memory.total", "") if machine.gpus else ""
    match = re.match(r"(\d+) MiB", stated)
    return int(match.group(1)) << 20 if match else 0


def packages_root() -> Path:
    """Where set-up puts the library versions of the variants: beside the environment's own."""
    return Path(os.environ.get("WORKLOG_VARIANTS") or Path(sys.prefix) / "variants")


def package_folder(package: str) -> Path:
    """Where a pinned package (`name==version`) lies, if it was installed."""
    return packages_root() / package.replace("==", "-")


def package_folders(variant: Variant) -> list[Path]:
    """Folders to put first on the variant's path. Raises PreconditionError when one is missing.

    WORKLOG_INSTALLED names packages (with commas) that are taken as they are installed beside
    torch where the pinned version is missing: a machine's own Triton. The manifest says which.
    """
    as_installed = set(os.environ.get("WORKLOG_INSTALLED", "").split(","))
    folders = []
    for package in variant.packages:
        folder = package_folder(package)
        if folder.is_dir():
            folders.append(folder)
        elif package.partition("==")[0] not in as_installed:
            raise PreconditionError(
                f"{package} of variant {variant.name} is not installed; run ./run.sh setup"
            )
    return folders


def compile_cache(variant: Variant) -> Path:
    """One compile cache per torch and variant: a cached graph of another library is never run."""
    base = Path(os.environ.get("WORKLOG_CACHE") or root() / ".cache")
    return base / "inductor" / f"torch-{package_version('torch')}" / variant.name
