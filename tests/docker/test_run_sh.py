"""Does run.sh choose the right place, the least privileges and the right words?

The engines here are small scripts: what they are asked is the thing under test. The real ones are
in test_images.py.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
RUN = CHECKOUT / "problems" / "float8_weight_only" / "run.sh"
HERE = f"{os.getuid()}:{os.getgid()}"
NEEDED = ("bash", "dirname", "basename", "id", "grep", "sed", "find", "sort", "tail", "awk", "cut",
          "env", "mkdir", "cat", "sh", "test")  # fmt: skip
# Answers `info` and `image inspect`, and writes down everything else that it is asked.
ENGINE = """#!/bin/sh
case "$1" in
  info) {info} ;;
  image) {image} ;;
esac
echo "$0 $*" >> "{log}"
case "$*" in *"{fails}"*) exit {code} ;; esac
"""


class Machine:
    """A PATH with what run.sh needs and what a test puts there, and a log of what was called."""

    def __init__(self, folder: Path) -> None:
        self.path, self.log = folder / "bin", folder / "log"
        self.path.mkdir()
        self.out = folder / "out"
        self.worklog = folder / "worklog"
        for name in NEEDED:
            found = shutil.which(name)
            assert found, name
            (self.path / name).symlink_to(found)

    def add(self, name: str, body: str) -> None:
        script = self.path / name
        script.unlink(missing_ok=True)  # a link: what it points to is the machine's own
        script.write_text(body if body.startswith("#!") else f"#!/bin/sh\n{body}\n")
        script.chmod(0o755)

    def engine(
        self, name: str = "docker", info: str = "exit 0", image: str = "exit 0",
        fails: str = "never", code: int = 1,
    ) -> None:  # fmt: skip
        self.add(name, ENGINE.format(info=info, image=image, log=self.log, fails=fails, code=code))

    def environment(self) -> None:
        """A local environment whose worklog writes down what it is asked."""
        self.worklog.write_text(f'#!/bin/sh\necho "worklog $*" >> "{self.log}"\n')
        self.worklog.chmod(0o755)

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(RUN), *arguments, "--out", str(self.out)],
            env={"PATH": str(self.path), "WORKLOG": str(self.worklog), **more},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def called(self) -> list[list[str]]:
        if not self.log.exists():
            return []
        lines = [shlex.split(line) for line in self.log.read_text().splitlines()]
        return [[Path(line[0]).name, *line[1:]] for line in lines]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def refused(done: subprocess.CompletedProcess[str], code: int) -> str:
    assert done.returncode == code, done
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    return last


LEAST = ["--security-opt", "no-new-privileges", "--cap-drop", "ALL"]


@pytest.mark.parametrize("verb", ["bench", "profile", "report", "doctor"])
def test_a_verb_that_needs_no_privilege_gets_none(machine: Machine, verb: str) -> None:
    machine.engine()
    done = machine.run(verb, "--preset", "tiny")
    assert done.returncode == 0, done.stderr
    assert machine.called() == [
        ["docker", "run", "--rm", *LEAST, "--volume", f"{machine.out}:/workspace/results",
         "--network", "none", "--user", HERE, "float8_weight_only", verb, "--preset", "tiny"]
    ]  # fmt: skip
    assert f"{verb} in the container float8_weight_only (docker); privileges: none" in done.stderr


def test_nsys_needs_no_privilege_and_says_why(machine: Machine) -> None:
    machine.engine()
    done = machine.run("nsys")
    (call,) = machine.called()
    assert "--cap-add" not in call and "--privileged" not in call
    assert "privileges: none: CUDA and NVTX tracing need no privilege" in done.stderr


def test_ncu_gets_sys_admin_says_why_and_gives_the_files_back(machine: Machine) -> None:
    machine.engine()
    machine.add("id", "case $1 in -u) echo 1234 ;; -g) echo 5678 ;; esac")
    done = machine.run("ncu")
    assert done.returncode == 0, done.stderr
    measured, given = machine.called()
    assert measured[measured.index("--cap-add") + 1] == "SYS_ADMIN"
    assert measured[measured.index("--user") + 1] == "0:0"
    assert given[-4:] == ["-R", "--from=0", "1234:5678", "/workspace/results"]
    assert "--privileged" not in measured + given
    assert "NVreg_RestrictProfilingToAdminUsers=0" in done.stderr


def test_files_are_given_back_and_the_exit_code_kept_when_ncu_fails(machine: Machine) -> None:
    machine.engine(fails="float8_weight_only ncu", code=3)
    machine.add("id", "echo 1234")
    assert machine.run("ncu").returncode == 3
    assert machine.called()[1][-2] == "1234:1234"


@pytest.mark.parametrize(
    ("smi", "flags"),
    [("echo 'GPU 0: NVIDIA H200'", ["--gpus", "all"]), ("exit 9", []), (None, [])],
)
def test_a_gpu_is_handed_on_only_where_there_is_one(machine: Machine, smi, flags) -> None:
    machine.engine()
    if smi:
        machine.add("nvidia-smi", smi)
    assert machine.run("bench").returncode == 0
    (call,) = machine.called()
    assert ("--gpus" in call) == bool(flags)


def test_podman_is_asked_in_its_own_words(machine: Machine) -> None:
    machine.engine("podman", info="echo '    rootless: true'; exit 0")
    machine.add("nvidia-smi", "echo 'GPU 0: NVIDIA H200'")
    assert machine.run("bench", DOCKER="podman").returncode == 0
    (call,) = machine.called()
    assert "--userns" in call and "keep-id" in call and "nvidia.com/gpu=all" in call


def test_without_root_docker_is_root_inside_who_is_the_caller_outside(machine: Machine) -> None:
    machine.engine(info="echo '  rootless'; exit 0")
    assert machine.run("bench").returncode == 0
    (call,) = machine.called()
    assert call[call.index("--user") + 1] == "0:0"


def test_flags_of_the_site_and_another_image_are_handed_on(machine: Machine) -> None:
    machine.engine()
    flags = "--env HTTPS_PROXY=http://p:1 --dns 10.0.0.1"
    machine.run("bench", DOCKER_RUN_FLAGS=flags, WORKLOG_IMAGE="mine:1")
    (call,) = machine.called()
    assert call[-6:] == [*flags.split(), "mine:1", "bench"]


@pytest.mark.parametrize(
    ("info", "image", "words"),
    [
        (None, None, "no container engine (docker) is here"),
        ("exit 1", "exit 0", "docker does not answer"),
        (
            "exit 0",
            "exit 1",
            "the image float8_weight_only is not built (docker build -f problems/",
        ),
    ],
)
def test_without_a_container_the_local_environment_serves_and_it_says_so(
    machine: Machine, info: str | None, image: str | None, words: str
) -> None:
    if info and image:
        machine.engine(info=info, image=image)
    machine.environment()
    done = machine.run("bench", "--preset", "tiny")
    assert done.returncode == 0, done.stderr
    assert machine.called()[-1] == [
        "worklog", "bench", "float8_weight_only", "--out", str(machine.out), "--preset", "tiny",
    ]  # fmt: skip
    assert f"bench in the local environment: {words}" in done.stderr


def test_without_either_it_says_how_to_get_both(machine: Machine) -> None:
    message = refused(machine.run("bench"), 3)
    assert "docker build -f problems/float8_weight_only/Dockerfile" in message
    assert message.endswith("run ./run.sh setup")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"DOCKER": "nerdctl"}, "no container engine (nerdctl) is here"),
        ({"WORKLOG_IMAGE": "mine"}, "the image mine is not built"),
    ],
)
def test_what_was_named_is_never_replaced_in_silence(machine: Machine, more, words) -> None:
    machine.engine(image="exit 1")
    machine.environment()
    assert words in refused(machine.run("bench", **more), 3)
    assert machine.called() == []


def test_an_output_folder_that_cannot_be_written_is_refused_before_the_work(
    machine: Machine,
) -> None:
    machine.engine()
    machine.out.write_text("a file")
    assert "choose another folder with --out" in refused(machine.run("bench"), 2)
    assert machine.called() == []


@pytest.mark.parametrize("arguments", [["benhc"], ["bench", "--out"], ["bench", "--out", ""]])
def test_a_wrong_call_is_refused(machine: Machine, arguments: list[str]) -> None:
    machine.engine()
    done = subprocess.run(
        [str(RUN), *arguments], env={"PATH": str(machine.path)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    refused(done, 2)
    assert machine.called() == []


def test_all_leaves_the_profilers_out_where_there_is_no_gpu(machine: Machine) -> None:
    machine.engine()
    done = machine.run()
    assert [call[-1] for call in machine.called()] == ["all"]
    assert "no GPU: nsys and ncu are left out" in done.stderr


def test_all_runs_each_profiler_apart_with_its_own_privileges(machine: Machine) -> None:
    machine.engine(fails="float8_weight_only nsys", code=3)
    machine.add("nvidia-smi", "echo 'GPU 0: NVIDIA H200'")
    machine.add("id", "echo 1234")
    done = machine.run("all")
    assert done.returncode == 3  # the worst of them, and ncu was run all the same
    calls = [call for call in machine.called() if "--entrypoint" not in call]
    assert [call[-1] for call in calls] == ["all", "nsys", "ncu"]
    assert ["SYS_ADMIN" in call for call in calls] == [False, False, True]


def test_a_dry_run_prints_commands_that_a_shell_can_read_and_runs_none(machine: Machine) -> None:
    machine.engine()
    done = machine.run("all", "--dry-run", "--variant", "a b")
    assert done.returncode == 0 and machine.called() == [] and not machine.out.exists()
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    verbs = [line[line.index("float8_weight_only") + 1] for line in lines if "--rm" in line
             and "--entrypoint" not in line]  # fmt: skip
    assert verbs == ["all", "nsys", "ncu"]
    assert all(line[-2:] == ["--variant", "a b"] for line in lines if "--entrypoint" not in line)


def test_a_local_dry_run_names_the_verbs_command(machine: Machine) -> None:
    done = machine.run("bench", "--dry-run", DOCKER="none")
    assert shlex.split(done.stdout)[1:3] == ["bench", "float8_weight_only"]


def test_the_capture_scripts_are_the_verbs(machine: Machine) -> None:
    machine.engine()
    for tool in ("nsys", "ncu"):
        done = subprocess.run(
            [str(RUN.parent / f"capture_{tool}.sh"), "--dry-run", "--preset", "tiny"],
            env={"PATH": str(machine.path)}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        words = shlex.split(done.stdout.splitlines()[0])
        assert words[-3:] == [tool, "--preset", "tiny"]


def test_the_newest_finished_run_is_reported(machine: Machine) -> None:
    machine.environment()
    for name in ("20260101T000000Z-a-tiny", "20260301T000000Z-b-tiny",
                 "20260401T000000Z-c-tiny.unfinished", "20260501T000000Z-d-tiny"):  # fmt: skip
        folder = machine.out / "float8_weight_only" / "cpu" / name
        folder.mkdir(parents=True)
        if "-d-" not in name:  # a capture has no samples
            (folder / "samples.jsonl").write_text("")
    assert machine.run("report", DOCKER="none").returncode == 0
    assert machine.called()[0][2].endswith("20260301T000000Z-b-tiny")


def test_a_report_of_nothing_is_refused(machine: Machine) -> None:
    machine.environment()
    assert "holds no finished run" in refused(machine.run("report", DOCKER="none"), 2)


def test_help_is_printed(machine: Machine) -> None:
    done = machine.run("--help")
    assert done.returncode == 0 and "run.sh bench | profile" in done.stdout
