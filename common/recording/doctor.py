"""What can this machine do, and what has to be done about each "no"?

Every line is a fact that was just read, `ok`, `missing` or `none` (there is nothing to mend: a
machine without a GPU), and the command or setting that mends it. Nothing here changes anything.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from common.errors import PreconditionError
from common.recording.environment import compiler_version, gpu_facts, package_version
from common.recording.tools import find_tool

WANTED_FREE_BYTES = 5 << 30
DRIVER_PARAMETERS = Path("/proc/driver/nvidia/params")
PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")
COMMAND_SECONDS = 20.0
OPEN_COUNTERS = (
    "on the host: echo 'options nvidia NVreg_RestrictProfilingToAdminUsers=0' | "
    "sudo tee /etc/modprobe.d/nvidia-profiling.conf, then reboot; or run ncu as root"
)


@dataclass(frozen=True)
class Finding:
    """`state`: ok, missing, or none (absent, and nothing here needs it)."""

    topic: str
    state: str
    says: str
    mend: str = ""
    required: bool = False

    @property
    def stops_everything(self) -> bool:
        return self.required and self.state == "missing"


def examine(root: Path) -> list[Finding]:
    """Read this machine. `root` is where results go, for the space on its disk."""
    gpus = gpu_facts()
    engine = container_engine(os.environ, _answers)
    findings = [
        gpu(gpus),
        torch_build(package_version("torch"), bool(gpus)),
        compiler(compiler_version()),
        profiler("nsys"),
        profiler("ncu"),
        counters(_text(DRIVER_PARAMETERS), os.geteuid() == 0, bool(gpus)),
        paranoid(_text(PARANOID)),
        engine,
        toolkit(bool(gpus), engine.state == "ok", shutil.which("nvidia-ctk") is not None),
        disk(shutil.disk_usage(root).free),
    ]
    return findings


def gpu(gpus: Sequence[Mapping[str, str]]) -> Finding:
    if gpus:
        first = gpus[0]
        more = f", and {len(gpus) - 1} more" if len(gpus) > 1 else ""
        says = f"{first['name']}, driver {first['driver_version']}{more}"
        return Finding("GPU and driver", "ok", says)
    if shutil.which("nvidia-smi"):
        return Finding(
            "GPU and driver", "missing", "nvidia-smi is here but lists no GPU",
            "run nvidia-smi and mend what it says; in a container: add --gpus all",
        )  # fmt: skip
    return Finding(
        "GPU and driver", "none", "no NVIDIA driver (nvidia-smi); everything here runs on the CPU"
    )


def torch_build(version: str | None, has_gpu: bool) -> Finding:
    if version is None:
        return Finding("torch", "missing", "not installed", "./run.sh setup", required=True)
    if has_gpu and version.endswith("+cpu"):
        return Finding(
            "torch", "missing", f"{version} is a CPU build beside a GPU",
            "rm -r .venv && ./run.sh setup",
        )  # fmt: skip
    cuda = package_version("nvidia-cuda-runtime") or package_version("nvidia-cuda-runtime-cu12")
    return Finding("torch", "ok", version + (f", CUDA {cuda}" if cuda else ", no CUDA"))


def compiler(version: str | None) -> Finding:
    if version is None:
        return Finding(
            "C++ compiler", "missing", "none; Inductor (CPU) and Triton (GPU) call one",
            "apt-get install g++", required=True,
        )  # fmt: skip
    return Finding("C++ compiler", "ok", version)


def profiler(name: str) -> Finding:
    try:
        tool = find_tool(name)
    except PreconditionError as error:
        return Finding(name, "missing", str(error), f"{name} --version")
    if tool is None:
        return Finding(
            name, "missing", "not on PATH",
            "use the image (./run.sh in a problem's folder) or see DOCKER_README.md",
        )  # fmt: skip
    return Finding(name, "ok", tool.version)


def counters(parameters: str | None, is_root: bool, has_gpu: bool) -> Finding:
    """May ncu read the GPU's counters? The driver says whether only administrators may."""
    topic = "GPU counters (ncu)"
    if parameters is None:
        if not has_gpu:
            return Finding(topic, "none", "no NVIDIA driver, no counters")
        return Finding(
            topic, "missing", "the driver's parameters cannot be read here",
            "run worklog doctor on the host",
        )  # fmt: skip
    match = re.search(r"^RmProfilingAdminOnly: *(\d)", parameters, re.MULTILINE)
    if match and match[1] == "0":
        return Finding(topic, "ok", "open to everybody")
    if is_root:
        return Finding(
            topic, "ok", "for administrators only, and this is root (a container needs SYS_ADMIN)"
        )
    return Finding(topic, "missing", "administrators only: ERR_NVGPUCTRPERM", OPEN_COUNTERS)


def paranoid(text: str | None) -> Finding:
    topic = "CPU sampling (nsys)"
    if text is None or not re.fullmatch(r"-?\d+", text.strip()):
        return Finding(topic, "none", "perf events are not offered here; captures go without")
    level = int(text)
    if level <= 2:
        return Finding(topic, "ok", f"perf_event_paranoid is {level}")
    return Finding(
        topic, "missing", f"perf_event_paranoid is {level}; worklog nsys does not need it",
        "sudo sysctl kernel.perf_event_paranoid=2",
    )  # fmt: skip


def container_engine(
    environment: Mapping[str, str], answers: Callable[[str], str | None]
) -> Finding:
    """The engine that run.sh would use, or podman where docker does not answer."""
    topic, named = "container engine", environment.get("DOCKER", "")
    tried = []
    for engine in [named] if named else ["docker", "podman"]:
        if not shutil.which(engine.split()[0]):
            tried.append(f"{engine} is not here")
            continue
        trouble = answers(engine)
        if trouble is None:
            mend = "" if named or engine == "docker" else f"export DOCKER={engine}"
            return Finding(topic, "ok", f"{engine} answers", mend)
        tried.append(f"{engine} does not answer ({trouble})")
    return Finding(
        topic, "missing", "; ".join(tried),
        "install Docker or podman, or start its daemon: sudo systemctl start docker",
    )  # fmt: skip


def toolkit(has_gpu: bool, has_engine: bool, installed: bool) -> Finding:
    topic = "NVIDIA container toolkit"
    if not has_gpu or not has_engine:
        return Finding(topic, "none", "no GPU to hand on" if not has_gpu else "no engine to serve")
    if installed:
        return Finding(topic, "ok", "nvidia-ctk is installed")
    return Finding(
        topic, "missing", "containers cannot see the GPU",
        "install nvidia-container-toolkit, then: sudo nvidia-ctk runtime configure && "
        "sudo systemctl restart docker",
    )  # fmt: skip


def disk(free_bytes: int) -> Finding:
    says = f"{free_bytes / 1e9:.0f} GB free here"
    if free_bytes >= WANTED_FREE_BYTES:
        return Finding("disk", "ok", says)
    return Finding("disk", "missing", f"{says}, builds and traces want 5", "free some space")


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _answers(engine: str) -> str | None:
    """None if the engine works, else its last words."""
    try:
        done = subprocess.run(
            [*engine.split(), "info"], capture_output=True, text=True, errors="replace",
            timeout=COMMAND_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    lines = (done.stderr or done.stdout).strip().splitlines()
    return None if done.returncode == 0 else (lines[-1][:120] if lines else "no message")


def to_text(findings: Sequence[Finding]) -> str:
    width = max(len(finding.topic) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:7}  {finding.topic:{width}}  {finding.says}")
        if finding.mend:
            lines.append(f"{'':7}  {'':{width}}  → {finding.mend}")
    return "\n".join(lines)


def to_json(findings: Sequence[Finding]) -> str:
    rows = [asdict(finding) for finding in findings]
    return json.dumps({"schema": "worklog.doctor/1", "findings": rows}, indent=1)
