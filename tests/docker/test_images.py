"""Is every problem's image really built, and does its run.sh really work in it?

Needs a container engine (DOCKER, default docker) and what it takes to build: a base image, the
network or what DOCKER_BUILD_FLAGS makes of it. `docker/ci-tools.sh` sets all of this up on a bare
machine. CPU builds, with Debian's Nsight tools.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers.command import wait_for, worklog

CHECKOUT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
KINDS = {
    path.parent.name: tomllib.loads(path.read_text()).get("kind", "timed")
    for path in (CHECKOUT / "problems").glob("*/problem.toml")
}
PROBLEMS = sorted(name for name, kind in KINDS.items() if kind == "timed")
# Problems that are compiled and not timed bring a compiler and have nothing for nsys to record
# without a GPU: their images are built on the same first stage, and their bench must pass in it.
COMPILED = sorted(set(KINDS) - set(PROBLEMS))
# Problem -> a variant that is worked out quickly, one of its figures, and what that comes to.
WORKED_OUT: dict[str, tuple[str, str, float]] = {
    "cuda_graph_memory": ("stack", "streamed_separate_7", 462),
    "gemlite_autotune": ("rtx-4090", "compiled", 2),
    "moe_batch_scaling": ("published", "sizes_reproduced", 10),
}
ENGINE = shlex.split(os.environ.get("DOCKER", "docker"))
LIMIT_BYTES = 2.5e9
LIMIT_BYTES_COMPILED = 3.3e9  # Triton with its compilers is 0.8 GB
REVISION = "0123456789abcdef0123456789abcdef01234567"
SOMEBODY = 1234  # a caller who is not root


def engine(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*ENGINE, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def works() -> None:
    if not shutil.which(ENGINE[0]) or engine("info").returncode != 0:
        pytest.skip("no container engine works here")


@dataclass(frozen=True)
class Built:
    problem: str
    image: str
    tree: Path  # the checkout that it was built from
    seconds: float

    def inspect(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(engine("image", "inspect", self.image).stdout)[0]
        return facts

    def layers(self) -> list[str]:
        found: list[str] = self.inspect()["RootFS"]["Layers"]
        return found

    def inside(self, command: str) -> str:
        done = engine("run", "--rm", "--network", "none", self.image, "bash", "-c", command)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def copy_of_the_tree(folder: Path) -> Path:
    """What git knows of the checkout, and what it does not know yet: the tree you look at."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=CHECKOUT, capture_output=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (CHECKOUT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, folder / name)
    return folder


def build(problem: str, tree: Path, tag: str) -> Built:
    base = os.environ.get("BASE_IMAGE")
    started = time.monotonic()
    done = subprocess.run(
        [*ENGINE, "build", *shlex.split(os.environ.get("DOCKER_BUILD_FLAGS", "")),
         *(["--build-arg", f"BASE_IMAGE={base}"] if base else []),
         "--build-arg", "TORCH=cpu", "--build-arg", "NSIGHT=debian",
         "--build-arg", f"REVISION={REVISION}",
         "-f", f"problems/{problem}/Dockerfile", "-t", tag, "."],
        cwd=tree, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return Built(problem, tag, tree, time.monotonic() - started)


@pytest.fixture(scope="session", params=PROBLEMS)
def built(works, request, tmp_path_factory: pytest.TempPathFactory) -> Built:
    tree = copy_of_the_tree(tmp_path_factory.mktemp("tree"))
    return build(request.param, tree, f"worklog-test-{request.param}")


@dataclass
class Caller:
    """Somebody, not root, with a folder of their own, who starts run.sh."""

    built: Built
    out: Path
    environment: dict[str, str]

    def command(self, *arguments: str) -> list[str]:
        script = self.built.tree / "problems" / self.built.problem / "run.sh"
        return [str(script), *arguments, "--out", str(self.out)]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), env=self.environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments), env={**self.environment, **more}, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )  # fmt: skip

    def runs(self) -> list[Path]:
        return sorted(self.out.glob("*/*/*"))

    def owners(self) -> set[int]:
        return {path.stat().st_uid for path in self.out.rglob("*")}


@pytest.fixture(scope="session")
def caller(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Caller:
    return somebody(built, tmp_path_factory.mktemp("caller"))


def somebody(built: Built, folder: Path) -> Caller:
    folder.chmod(0o755)
    out, cache, programs = folder / "out", folder / "cache", folder / "bin"
    out.mkdir()
    cache.mkdir()
    cache.chmod(0o777)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WORKLOG_")}
    if os.getuid() == 0:
        # An engine of root's, called for somebody else: their numbers, and their folder.
        programs.mkdir()
        (programs / "id").write_text(f"#!/bin/sh\necho {SOMEBODY}\n")
        (programs / "id").chmod(0o755)
        os.chown(out, SOMEBODY, SOMEBODY)
        environment["PATH"] = f"{programs}:{environment['PATH']}"
    flags = f"{environment.get('DOCKER_RUN_FLAGS', '')} --volume {cache}:/cache"
    return Caller(
        built, out, {**environment, "WORKLOG_IMAGE": built.image, "DOCKER_RUN_FLAGS": flags}
    )


def test_an_image_says_what_it_is_and_holds_the_tree_without_its_history(built: Built) -> None:
    facts = built.inspect()
    config = facts.get("Config", facts)
    labels = config["Labels"]
    assert labels["org.opencontainers.image.revision"] == REVISION
    assert labels["worklog.problem"] == built.problem
    assert labels["worklog.nsight"] == "debian" and labels["worklog.torch"].endswith(" cpu")
    assert config["User"] == "1000"
    source = (built.tree / "problems" / built.problem / "repro.py").read_text()
    assert built.inside(f"cat problems/{built.problem}/repro.py") == source.strip()
    assert built.inside("ls -A | grep -xE '\\.git|\\.venv|results/.+' || true") == ""
    assert built.inside("id -u; cat /etc/pip.conf 2>/dev/null | wc -c") == "1000\n0"


def test_an_image_holds_pinned_tools_and_the_cpu_build_and_fits(built: Built) -> None:
    said = built.inside(
        "nsys --version; ncu --version | tail -1; jupyter lab --version; worklog --version; "
        "python -c 'import torch; print(torch.__version__)'; pip --no-cache-dir check"
    )
    assert "2022.4.2" in said and "2022.3.0" in said and "+cpu" in said and "worklog 0." in said
    size = built.inspect()["Size"]
    print(f"\n{built.problem}: {size / 1e9:.2f} GB, built in {built.seconds:.0f} s")
    assert size <= LIMIT_BYTES


def test_a_changed_source_reinstalls_nothing(built: Built) -> None:
    path = built.tree / "problems" / built.problem / "repro.py"
    before = path.read_text()
    path.write_text(before + "\n# changed\n")
    try:
        again = build(built.problem, built.tree, f"{built.image}-changed")
    finally:
        path.write_text(before)
    try:
        first, second = built.layers(), again.layers()
        differing = [index for index in range(len(first)) if first[index] != second[index]]
        # The copied tree alone; what was installed is the same, bit for bit.
        assert len(first) == len(second) and len(differing) == 1
        assert again.inside(f"tail -1 problems/{built.problem}/repro.py") == "# changed"
        assert again.seconds < max(30, built.seconds / 2)
    finally:
        engine("image", "rm", again.image)


def test_bench_passes_in_the_container_and_leaves_a_run_outside_it(caller: Caller) -> None:
    variants = json.loads(caller.built.inside(
        "python -c 'import json; from common.contract.problem import load_problem as l; "
        f"print(json.dumps(l(\"{caller.built.problem}\").default_variants()))'"
    ))  # fmt: skip
    # The baseline and the first that is compared with it: each more costs a compilation.
    done = caller.run("bench", "--preset", "tiny", "--variant", variants[1])
    assert done.returncode == 0, done.stderr
    assert f"bench in the container {caller.built.image}" in done.stderr
    (folder,) = caller.runs()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "finished" and manifest["revision"] == REVISION
    summary = json.loads((folder / "summary.json").read_text())
    assert {variants[0], variants[1]} <= set(summary["variants"])
    assert all(summary["variants"][name]["state"] == "measured" for name in variants[:2])
    assert caller.owners() == {SOMEBODY if os.getuid() == 0 else os.getuid()}


@pytest.fixture(scope="session")
def captured(caller: Caller) -> list[Path]:
    """nsys of the two variants that were timed: the SQLite of each."""
    if not caller.runs():
        pytest.skip("the bench in the container failed")
    before = set(caller.runs())
    names = list(json.loads((min(before) / "summary.json").read_text())["variants"])[:2]
    done = caller.run("nsys", "--preset", "tiny", "--variant", names[0], "--variant", names[1])
    assert done.returncode == 0, done.stderr
    (folder,) = set(caller.runs()) - before
    return [folder / "traces" / name / "nsys-ranges.sqlite" for name in names]


def test_nsys_in_the_container_records_real_ranges_without_any_privilege(captured) -> None:
    manifest = json.loads((captured[0].parents[2] / "manifest.json").read_text())
    assert [record["state"] for record in manifest["captures"]] == ["complete", "complete"]
    assert manifest["capture"]["version"] == "2022.4.2"
    for path in captured:
        with sqlite3.connect(path) as connection:
            names = connection.execute(
                "SELECT DISTINCT COALESCE(e.text, s.value) FROM NVTX_EVENTS e "
                "LEFT JOIN StringIds s ON s.id = e.textId WHERE eventType = 59"
            ).fetchall()
        assert (manifest["capture"]["nvtx_range"],) in names


def test_the_diff_of_two_captures_attributes_by_range(captured, tmp_path: Path) -> None:
    a, b = map(str, captured)
    done = worklog(tmp_path, "diff", a, b, "--by", "range", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    rows = document["rows"]
    assert document["residual"] == 0
    assert document["delta"] == sum(row["delta"] for row in rows + document["remainders"])
    manifest = json.loads((captured[0].parents[2] / "manifest.json").read_text())
    assert manifest["capture"]["nvtx_range"] in {row["name"] for row in rows}
    assert document["delta"] != 0  # without a GPU it is the ranges' own time that is attributed


def test_the_report_of_the_newest_run_is_written(caller: Caller) -> None:
    done = caller.run("report")
    assert done.returncode == 0, done.stderr
    assert [path for path in caller.runs() if (path / "report.html").is_file()]


def test_the_doctor_examines_the_container(caller: Caller) -> None:
    done = caller.run("doctor")
    assert done.returncode == 0, done.stderr
    assert re.search(r"ok +nsys +2022\.4\.2", done.stdout)


def test_ncu_without_a_gpu_is_refused_with_exit_code_3(caller: Caller) -> None:
    done = caller.run("ncu", "--preset", "tiny")
    assert done.returncode == 3
    assert "there is none here" in done.stderr
    assert caller.owners() <= {SOMEBODY if os.getuid() == 0 else os.getuid()}


def test_ctrl_c_reaches_the_container_and_what_was_begun_is_marked(caller: Caller) -> None:
    before = set(caller.runs())
    process = caller.start("bench", "--preset", "tiny")
    begun = wait_for(lambda: list(caller.out.glob("*/*/*.unfinished/manifest.json")), 60)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert begun, said
    assert process.returncode == 130, said
    assert "error: stopped" in said
    (folder,) = set(caller.runs()) - before
    assert folder.name.endswith(".unfinished")
    ended = json.loads((folder / "manifest.json").read_text())["ended_by"]
    assert ended == "KeyboardInterrupt"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def notebook(caller: Caller) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    port = free_port()
    # Without the engine's own networks, which a bare machine does not have.
    flags = f"{caller.environment['DOCKER_RUN_FLAGS']} --network host"
    process = caller.start("notebook", WORKLOG_PORT=str(port), DOCKER_RUN_FLAGS=flags)
    yield port, process
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)


def test_the_notebook_server_answers(notebook) -> None:
    port, process = notebook

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=5) as reply:
                return "version" in json.load(reply)
        except OSError:
            return False

    assert wait_for(lambda: answers() or process.poll() is not None, 120)
    assert process.poll() is None, process.communicate()[1]


@pytest.fixture(scope="session", params=COMPILED)
def compiled(works, request, tmp_path_factory: pytest.TempPathFactory) -> Built:
    tree = copy_of_the_tree(tmp_path_factory.mktemp("compiled-tree"))
    return build(request.param, tree, f"worklog-test-{request.param}")


def test_a_problem_that_is_not_timed_by_variants_does_its_work_in_its_image(
    compiled: Built, tmp_path_factory: pytest.TempPathFactory
) -> None:
    size = compiled.inspect()["Size"]
    print(f"\n{compiled.problem}: {size / 1e9:.2f} GB, built in {compiled.seconds:.0f} s")
    assert size <= LIMIT_BYTES_COMPILED
    caller = somebody(compiled, tmp_path_factory.mktemp("compiled-caller"))
    variant, figure, value = WORKED_OUT[compiled.problem]
    done = caller.run("bench", "--preset", "tiny", "--variant", variant)
    assert done.returncode == 0, done.stderr
    assert f"bench in the container {compiled.image}" in done.stderr
    (folder,) = caller.runs()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "finished" and manifest["revision"] == REVISION
    summary = json.loads((folder / "summary.json").read_text())
    states = {name: summary["variants"][name]["state"] for name in (variant, summary["baseline"])}
    assert set(states.values()) == {"measured"}, states
    assert summary["variants"][variant]["figures"][figure]["value"] == value
    assert caller.owners() == {SOMEBODY if os.getuid() == 0 else os.getuid()}
    report = caller.run("report")
    assert report.returncode == 0, report.stderr
    assert (folder / "report.html").is_file()
