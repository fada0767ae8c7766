"""Are wishes settled against the machine before any work, and written down without places?"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.command import CHECKOUT, environment
from helpers.synthetic import VARIANTS, make_problem

from common.errors import PreconditionError, UsageError
from common.experiments import request as request_module
from common.experiments.manifest import first_manifest
from common.experiments.request import choose_device, device_bytes, packages_root, settle
from common.floors.measured import from_json
from common.recording.environment import Machine

MACHINE = Machine("A CPU", 2, 2, None, None, 1 << 34, None, "Linux", None, ())
H200 = replace(
    MACHINE, gpus=({"name": "NVIDIA H200", "memory.total": "143771 MiB", "compute_cap": "9.0"},)
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKLOG_ROOT", str(tmp_path))
    monkeypatch.setenv("WORKLOG_VARIANTS", str(tmp_path / "variants"))
    make_problem(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("version", "machine", "wanted", "found"),
    [
        ("2.13.0+cpu", MACHINE, "auto", "cpu"), ("2.13.0", H200, "auto", "cuda"),
        ("2.13.0+cpu", H200, "auto", "cpu"), ("2.13.0", H200, "cpu", "cpu"),
        ("2.13.0", MACHINE, "cuda", "nvidia-smi lists no GPU"),
        ("2.13.0+cpu", H200, "cuda", "is a CPU build"),
        (None, MACHINE, "cpu", "run ./run.sh setup"),
    ],
)  # fmt: skip
def test_the_device_is_one_that_torch_and_the_machine_have(
    monkeypatch, version, machine, wanted, found
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(request_module, "package_version", lambda name: version)
    if found in ("cpu", "cuda"):
        assert choose_device(wanted, machine) == found
    else:
        with pytest.raises(PreconditionError, match=found):
            choose_device(wanted, machine)


def test_the_memory_of_a_gpu_is_its_own() -> None:
    assert device_bytes(H200, "cuda") == 143771 << 20
    assert device_bytes(MACHINE, "cuda") == 0
    assert device_bytes(MACHINE, "cpu") > 1 << 20


@pytest.mark.parametrize("capability", ["[N/A]", "", "8.0"])
def test_a_variant_that_needs_another_gpu_is_not_applicable_and_says_so(
    root: Path, monkeypatch, capability: str
) -> None:  # type: ignore[no-untyped-def]
    picky = {"tolerance": 0.1, "needs_cuda_capability": 8.9, "packages": ["absent==1"]}
    make_problem(root, variants={"plain": VARIANTS["plain"], "picky": picky}, claims=())
    gpu = {"name": "GPU", "memory.total": "1 MiB", "compute_cap": capability}
    monkeypatch.setattr(request_module, "read_machine", lambda: replace(MACHINE, gpus=(gpu,)))
    settled = settle("spin", device="cpu")
    assert [v.name for v in settled.variants] == ["plain"]
    assert "capability 8.9, this is a CPU" in settled.not_applicable["picky"]


def test_a_path_of_traffic_that_does_not_exist_is_found_before_the_run(root: Path) -> None:
    odd = {"tolerance": 0.1, "traffic": {"cpu": "by-carrier-pigeon"}}
    make_problem(root, variants={"plain": VARIANTS["plain"], "odd": odd}, claims=())
    with pytest.raises(UsageError, match="by-carrier-pigeon"):
        settle("spin")


def test_packages_lie_beside_the_environment_unless_told(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.delenv("WORKLOG_VARIANTS", raising=False)
    assert packages_root() == Path(sys.prefix) / "variants"
    monkeypatch.setenv("WORKLOG_VARIANTS", "/elsewhere")
    assert packages_root() == Path("/elsewhere")


def test_a_manifest_holds_what_was_asked_and_no_place(root: Path) -> None:
    (root / "weights").mkdir()
    (root / "weights" / "config.json").write_text("{}")
    options = {"checkpoint": str(root / "weights"), "compile_prefill": True}
    settled = settle("spin", "tiny", ["double"], "cpu", root / "out", options)
    manifest = first_manifest(settled, "bench", ["bench", "spin", "--out=…"])
    assert manifest["options"] == {"checkpoint": True, "compile_prefill": True}
    assert list(manifest["variants"]) == ["plain", "double"]
    assert manifest["predictions"].keys() == {"first"}
    assert manifest["preset"]["settings"] == {"steps": 2, "base_us": 100}
    assert str(root) not in json.dumps(manifest)
    assert settled.run_parent == root / "out" / "spin" / settled.device_slug


def test_a_bench_measures_the_floors_of_its_machine(tmp_path: Path) -> None:
    """The process that a run starts for it; it needs torch, so it is here once and for all."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "common.experiments.floors_pass", "cpu", "0.01"],
        env=environment(tmp_path), cwd=CHECKOUT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert from_json(done.stdout).read.best > 0
