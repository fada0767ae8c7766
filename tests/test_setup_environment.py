"""Is set-up done when it must be, only then, and does each failure say in one line what to do?"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common import setup_environment
from common.setup_environment import (
    Pip,
    SetupFailed,
    fingerprint,
    has_nvidia_gpu,
    install_torch,
    install_variants,
    is_current,
    main,
    make_venv,
    set_up,
    variant_packages,
)

CHECKOUT = Path(__file__).parents[1]
PROBLEM = """[variants.a]
packages = ["torchao==0.13.0"]
[variants.b]
packages = ["torchao==0.13.0", "x==1"]
"""

# What pip printed when it was started without a network, on a full disk, behind a proxy, …
LOGS = {
    "no network": (
        "WARNING: Retrying (Retry(total=4, connect=None, read=None, redirect=None, status=None)) "
        "after connection broken by 'NewConnectionError('<pip._vendor.urllib3.connection."
        "HTTPSConnection object at 0x7f>: Failed to establish a new connection: [Errno -3] "
        "Temporary failure in name resolution')': /simple/torch/\n"
        "ERROR: Could not find a version that satisfies the requirement torch==2.13.0 (from "
        "versions: none)\nERROR: No matching distribution found for torch==2.13.0\n"
    ),
    "proxy": (
        "WARNING: Retrying (Retry(total=0)) after connection broken by 'ProxyError('Cannot connect "
        "to proxy.', OSError('Tunnel connection failed: 403 Forbidden'))': /simple/x/\n"
        "ERROR: No matching distribution found for x==1\n"
    ),
    "certificate": (
        "WARNING: Retrying after connection broken by 'SSLError(SSLCertVerificationError(1, "
        "'[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed'))': /simple/x/\n"
        "ERROR: No matching distribution found for x==1\n"
    ),
    "disk": (
        "Downloading torch-2.13.0.whl (200.0 MB)\n"
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"
    ),
    "version": (
        "ERROR: Could not find a version that satisfies the requirement x==9 (from versions: 1)\n"
        "ERROR: No matching distribution found for x==9\n"
    ),
    "hash": "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.\n",
    "other": "ERROR: Failed building wheel for x\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "problems" / "p").mkdir(parents=True)
    (root / "problems" / "p" / "problem.toml").write_text(PROBLEM)
    for name in ("pyproject.toml", "requirements.txt", "requirements-dev.txt"):
        (root / name).write_text(f"# {name}\n")
    return root


def installed(root: Path, dev: bool = False, gpu: bool = False) -> Path:
    """What a set-up leaves behind, as far as `is_current` looks at it."""
    venv = root / ".venv"
    for package in ("torchao-0.13.0", "x-1"):
        (venv / "variants" / package).mkdir(parents=True)
    (venv / "bin").mkdir()
    (venv / "bin" / "worklog").write_text("")
    (venv / ".worklog-setup").write_text(fingerprint(root, dev, gpu) + "\n")
    return venv


def fake_pip(tmp_path: Path, body: str) -> Pip:
    """An environment whose `python -m pip …` is this shell script; what follows pip is in $*."""
    venv = tmp_path / "fake"
    (venv / "bin").mkdir(parents=True)
    script = venv / "bin" / "python"
    script.write_text(f"#!/bin/sh\nshift 4\n{body}\n")
    script.chmod(0o755)
    return Pip(venv)


def test_packages_of_all_variants_are_listed_once(root: Path) -> None:
    assert variant_packages(root) == ["torchao==0.13.0", "x==1"]
    assert "torchao==0.13.0" in variant_packages(CHECKOUT)


def test_what_is_installed_and_unchanged_is_current(root: Path) -> None:
    venv = installed(root)
    assert is_current(venv, root, dev=False, gpu=False)
    assert not is_current(venv, root, dev=True, gpu=False)  # lacks what test.sh needs
    assert not is_current(venv, root, dev=False, gpu=True)  # another torch


def test_a_development_environment_serves_for_running(root: Path) -> None:
    venv = installed(root, dev=True)
    assert is_current(venv, root, dev=False, gpu=False)
    assert is_current(venv, root, dev=True, gpu=False)


@pytest.mark.parametrize("name", ["pyproject.toml", "requirements.txt", "problems/p/problem.toml"])
def test_any_change_of_what_is_wanted_asks_for_a_new_set_up(root: Path, name: str) -> None:
    venv = installed(root)
    text = (root / name).read_text()
    (root / name).write_text(text.replace("x==1", "x==2") + "# more\n")
    if name.endswith("problem.toml"):
        (venv / "variants" / "x-2").mkdir()
    assert not is_current(venv, root, dev=False, gpu=False)


def test_a_change_for_development_alone_does_not_concern_the_others(root: Path) -> None:
    venv = installed(root)
    (root / "requirements-dev.txt").write_text("ruff==9\n")
    assert is_current(venv, root, dev=False, gpu=False)


def test_another_python_is_another_environment(root: Path, monkeypatch) -> None:
    venv = installed(root)
    monkeypatch.setattr(platform, "python_version", lambda: "3.99.0")
    assert not is_current(venv, root, dev=False, gpu=False)


def test_a_copied_repository_does_not_run_the_one_it_was_copied_from(root, tmp_path) -> None:
    installed(root)
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    assert not is_current(copy / ".venv", copy, dev=False, gpu=False)


@pytest.mark.parametrize("missing", ["variants/x-1", "bin/worklog", ".worklog-setup"])
def test_what_was_deleted_is_installed_again(root: Path, missing: str) -> None:
    """Otherwise the advice "run ./run.sh setup" would do nothing."""
    venv = installed(root)
    path = venv / missing
    path.rmdir() if path.is_dir() else path.unlink()
    assert not is_current(venv, root, dev=False, gpu=False)


@pytest.mark.parametrize(
    ("log", "words", "action"),
    [
        ("no network", "no network to install torch", "run again"),
        ("proxy", "no network to install torch", "run again"),
        ("certificate", "no network to install torch", "run again"),
        ("disk", "the disk is full while installing torch", "run this again"),
        (
            "version",
            f"no package source has torch for Python {platform.python_version()}",
            "run again",
        ),
        ("hash", "a package source has another build of torch than", "run this again"),
        ("other", "installing torch failed; see setup.log in .venv", "run this again"),
    ],
)
def test_each_failure_of_pip_becomes_one_line_with_an_action(
    tmp_path: Path, log: str, words: str, action: str
) -> None:
    pip = fake_pip(tmp_path, "cat <<'END'\n" + LOGS[log] + "END\nexit 1")
    with pytest.raises(SetupFailed) as caught:
        pip.install("torch", "torch==2.13.0")
    message = str(caught.value)
    assert message.startswith(words) and message.endswith(action) and "\n" not in message


def test_only_the_last_call_of_pip_is_explained(tmp_path: Path) -> None:
    pip = fake_pip(
        tmp_path,
        f"case \"$*\" in *first*) echo 'ProxyError'; exit 1;; esac\necho {LOGS['other']!r}; exit 1",
    )
    assert not pip.attempt("install", "first")
    assert pip.lacks_network()
    assert not pip.attempt("install", "second")
    assert not pip.lacks_network()
    assert "install first" in pip.log.read_text()


def test_torch_is_sought_as_cpu_build_twice_and_then_plain(tmp_path: Path, capsys) -> None:
    pip = fake_pip(tmp_path, 'case "$*" in *torch-cpu.txt*) exit 1;; esac')
    install_torch(pip, gpu=False)
    calls = [line for line in pip.log.read_text().splitlines() if line.startswith("$ pip")]
    assert len(calls) == 3 and calls[2].endswith("locks/torch-cuda.txt")
    assert all("--require-hashes" in call for call in calls)
    assert "about 3 GB" in capsys.readouterr().err


def test_without_any_network_set_up_says_so_after_every_source_was_tried(tmp_path: Path) -> None:
    pip = fake_pip(tmp_path, "echo ConnectTimeoutError; exit 1")
    with pytest.raises(SetupFailed, match="no network to install torch"):
        install_torch(pip, gpu=False)
    assert pip.log.read_text().count("$ pip") == 3


def test_a_variant_installed_by_half_is_never_taken_for_installed(root, tmp_path) -> None:
    half = fake_pip(
        tmp_path,
        'while [ "$1" != --target ]; do shift; done; mkdir -p "$2"; echo half > "$2/half.py"\n'
        "echo 'No space left on device'; exit 1",
    )
    venv = half.python.parents[1]
    with pytest.raises(SetupFailed, match=r"disk is full while installing torchao==0\.13\.0"):
        install_variants(half, venv, root)
    assert not (venv / "variants" / "torchao-0.13.0").exists()
    assert (venv / "variants" / "torchao-0.13.0.part" / "half.py").exists()

    half.python.write_text(
        '#!/bin/sh\nwhile [ "$1" != --target ]; do shift; done\n'
        'mkdir -p "$2"; echo > "$2/whole.py"\n'
    )
    install_variants(half, venv, root)
    assert sorted(p.name for p in (venv / "variants").iterdir()) == ["torchao-0.13.0", "x-1"]
    assert [p.name for p in (venv / "variants" / "torchao-0.13.0").iterdir()] == ["whole.py"]


def test_a_variant_is_installed_by_the_hashes_of_its_lock(root: Path, tmp_path: Path) -> None:
    lock = (
        "# made\nx==1 \\\n    --hash=sha256:aa\n"
        "torchao==0.13.0 \\\n    --hash=sha256:bb \\\n    --hash=sha256:cc\n"
    )
    (root / "problems" / "p" / "requirements-variants.txt").write_text(lock)
    pip = fake_pip(
        tmp_path,
        'while [ "$1" != --target ]; do shift; done; mkdir -p "$2"\n'
        'while [ "$1" != -r ]; do shift; done; cat "$2"',
    )
    install_variants(pip, pip.python.parents[1], root)
    said = pip.log.read_text()
    assert said.count("--require-hashes") == 2
    assert "torchao==0.13.0 \\\n    --hash=sha256:bb \\\n    --hash=sha256:cc\n" in said
    assert set(setup_environment.variant_locks(CHECKOUT)) >= set(variant_packages(CHECKOUT))


def test_what_is_there_is_not_installed_again(root: Path, tmp_path: Path) -> None:
    pip = fake_pip(tmp_path, "exit 1")
    venv = pip.python.parents[1]
    for name in ("torchao-0.13.0", "x-1"):
        (venv / "variants" / name).mkdir(parents=True)
    install_variants(pip, venv, root)
    assert not pip.log.exists()


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("The virtual environment was not created successfully because ensurepip is not available.",
         "apt-get install python3-venv"),
        ("Error: [Errno 28] No space left on device", "the disk is full"),
        ("Error: something else", "Error: something else"),
        ("", "no message"),
    ],
)  # fmt: skip
def test_an_environment_that_cannot_be_made_says_why(tmp_path, monkeypatch, output, words) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho '{output}'\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(SetupFailed, match=words) as caught:
        make_venv(tmp_path / ".venv")
    assert "\n" not in str(caught.value)


def test_an_environment_of_another_python_is_made_anew(tmp_path: Path, monkeypatch) -> None:
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    for version, expected in ((platform.python_version(), False), ("3.10.1", True)):
        (venv / "bin" / "python").write_text(f"#!/bin/sh\necho {version}\n")
        (venv / "bin" / "python").chmod(0o755)
        marker = tmp_path / f"made-{version}"
        maker = tmp_path / "maker"
        maker.write_text(f"#!/bin/sh\ntouch {marker}\n")
        maker.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(maker))
        make_venv(venv)
        assert marker.exists() == expected


def test_a_set_up_that_fails_leaves_no_stamp_of_the_old_one(root: Path, monkeypatch) -> None:
    """Going back to the old files must not find the half-changed environment current."""
    venv = installed(root)
    (root / "requirements.txt").write_text("numpy==1\n")
    monkeypatch.setenv("WORKLOG_TORCH", "cpu")

    def fail(venv: Path) -> None:
        raise SetupFailed("no")

    monkeypatch.setattr(setup_environment, "make_venv", fail)
    with pytest.raises(SetupFailed):
        set_up(root, dev=False)
    (root / "requirements.txt").write_text("# requirements.txt\n")
    assert not is_current(venv, root, dev=False, gpu=False)


def test_a_broken_problem_is_one_line_and_no_traceback(root: Path, monkeypatch, capsys) -> None:
    (root / "problems" / "p" / "problem.toml").write_text("variants = [")
    monkeypatch.setattr(setup_environment, "ROOT", root)
    monkeypatch.setattr(setup_environment, "make_venv", lambda venv: pytest.fail("work was begun"))
    monkeypatch.setattr(sys, "argv", ["setup_environment.py"])
    assert main() == 3
    error = capsys.readouterr().err
    assert error.startswith("error: problems/p/problem.toml: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("wish", "script", "found"),
    [
        ("cuda", "exit 1", True), ("cpu", "echo GPU 0: x", False), ("", "echo GPU 0: x", True),
        ("", "echo No devices", False), ("", "echo GPU; exit 9", False),
    ],
)  # fmt: skip
def test_a_gpu_is_what_nvidia_smi_lists_unless_told(
    tmp_path, monkeypatch, wish, script, found
) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\n{script}\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("WORKLOG_TORCH", wish)
    assert has_nvidia_gpu() is found


# run.sh


@pytest.fixture
def path_with(tmp_path: Path):  # type: ignore[no-untyped-def]
    """A PATH with what run.sh itself needs, and these scripts."""
    folder = tmp_path / "path"
    folder.mkdir()
    for name in ("bash", "dirname", "sh"):
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)

    def make(**scripts: str) -> str:
        for name, body in scripts.items():
            (folder / name).write_text(f"#!/bin/sh\n{body}\n")
            (folder / name).chmod(0o755)
        return str(folder)

    return make


def run_sh(path: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(CHECKOUT / "run.sh"), *arguments], env={"PATH": path, **more},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stdout) == (3, ""), done
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    return done.stderr


def test_an_old_python_is_refused_in_one_line(path_with) -> None:
    # An old Python: the check of its version fails, with whatever it prints about the syntax.
    path = path_with(python3="echo 'SyntaxError' >&2; exit 1")
    assert "3.11 or newer is needed and none was found" in refused(run_sh(path))
    assert "none was found" in refused(run_sh(path, "setup"))


def test_no_python_at_all_is_refused_in_one_line(path_with) -> None:
    assert "install it or set PYTHON" in refused(run_sh(path_with()))


def test_a_python_that_was_named_and_is_none_is_refused(path_with) -> None:
    path = path_with(python3="exit 0", old="exit 1")
    for python in ("old", "missing"):
        assert f"PYTHON={python} is no Python 3.11" in refused(run_sh(path, PYTHON=python))


def test_the_first_python_that_is_new_enough_sets_up_and_its_code_is_kept(path_with) -> None:
    seen = 'case "$1" in -c) exit 0;; esac; echo "set up by $0: $*" >&2; exit 3'
    path = path_with(**{"python3": "exit 1", "python3.12": seen})
    done = run_sh(path, "setup")
    assert done.returncode == 3
    assert "python3.12" in done.stderr and "common/setup_environment.py" in done.stderr
