"""Are the image files what they promise, as far as can be seen without building them?"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from common.setup_environment import TORCH

CHECKOUT = Path(__file__).parents[2]
DOCKER = CHECKOUT / "docker"
PROBLEMS = sorted(path.parent for path in (CHECKOUT / "problems").glob("*/problem.toml"))
names = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda path: path.name)
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCKER / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pins(text: str) -> dict[str, str]:
    return {name.lower().replace("_", "-"): version for name, version in PIN.findall(text)}


def scripts_and_dockerfiles() -> list[Path]:
    found = [*DOCKER.iterdir(), *CHECKOUT.glob("problems/*/Dockerfile")]
    return [path for path in [*found, *CHECKOUT.glob("problems/*/*.sh")] if path.is_file()]


@names
def test_a_problem_has_its_image_and_its_three_thin_scripts(problem: Path) -> None:
    assert (problem / "Dockerfile").is_file()
    for name in ("run.sh", "capture_nsys.sh", "capture_ncu.sh"):
        path = problem / name
        assert os.access(path, os.X_OK), path
        assert len(path.read_text().splitlines()) <= 60, path


@names
def test_an_image_is_pinned_and_copies_the_tree_and_ends_unprivileged(problem: Path) -> None:
    text = (problem / "Dockerfile").read_text()
    assert re.search(r"^ARG BASE_IMAGE=[a-z/]+:\d+\.\d+\.\d+-", text, re.MULTILINE)
    # Defaults before the first FROM hold in every stage that names the argument.
    assert "ARG NSIGHT=nvidia\nARG TORCH=cuda\nFROM" in text
    assert text.count("\nARG NSIGHT\n") == text.count("\nARG TORCH\n") == 2
    assert f"ARG PROBLEM={problem.name}\n" in text
    assert "COPY . .\n" in text and "ARG REVISION" in text
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE)[-1:] == ["1000"]
    assert f'worklog.torch="{TORCH} ' in text
    labels = re.findall(r'([a-z.]+)="', text)
    for label in ("org.opencontainers.image.revision", "worklog.problem", "worklog.nsight"):
        assert label in labels


def test_all_images_have_their_first_stage_in_common() -> None:
    """The same text is the same layers: torch and the profilers are installed once for all."""
    stages = set()
    for problem in PROBLEMS:
        text = (problem / "Dockerfile").read_text()
        stages.add(text[text.index("ARG BASE_IMAGE") : text.index("\nFROM base")])
    assert len(stages) == 1


def test_images_with_triton_share_its_layer_and_get_no_other_than_their_own() -> None:
    shared, lists = set(), []
    for problem in PROBLEMS:
        text = (problem / "Dockerfile").read_text()
        between = text[text.index("\nFROM base") : text.index("ARG PROBLEM")]
        own = script("install_variants").entries(
            (problem / "requirements-variants.txt").read_text()
        )
        triton = {name: lock for name, lock in own.items() if name.startswith("triton-")}
        copied = re.search(r"COPY (problems/\S+)", between)
        assert bool(triton) == bool(copied), problem  # 0.8 GB: not for who does not compile
        if copied:
            shared.add(between)
            list_ = script("install_variants").entries((CHECKOUT / copied[1]).read_text())
            assert list_.items() <= own.items()
            lists.append(list_)
    assert len(shared) == 1 and len(lists) == 2


def test_what_a_layer_brought_is_not_installed_again(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("nothing-like-this==1.0 --hash=sha256:00\n")
    (tmp_path / "to" / "nothing-like-this-1.0").mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, str(DOCKER / "install_variants.py"), str(lock), str(tmp_path / "to")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr  # it is in no index


def test_nothing_is_cloned_or_piped_into_a_shell_and_no_secret_is_copied() -> None:
    for path in scripts_and_dockerfiles():
        text = path.read_text()
        assert "git clone" not in text, path
        assert not re.search(r"(curl|wget)[^\n]*\| *(ba)?sh", text), path
        assert ":latest" not in text, path
        assert not re.search(r"sshd|PASSWORD|TOKEN|PRIVATE KEY", text), path
    ignored = (CHECKOUT / ".dockerignore").read_text().splitlines()
    assert {".git", ".venv", "results", "**/.env", "**/*.pem", "**/*.key"} <= set(ignored)


def test_no_file_names_a_package_archive_of_one_site() -> None:
    """The vendor's own addresses are part of the matter; where a machine's packages come from is
    its own affair."""
    allowed = ("developer.download.nvidia.com", "download.pytorch.org", "docs.astral.sh")
    for path in [*scripts_and_dockerfiles(), *(DOCKER / "locks").iterdir()]:
        for host in re.findall(r"(?:https?|file)://([^\s/'\"]+)", path.read_text()):
            assert host in (*allowed, "127.0.0.1"), (path, host)


def test_the_bake_file_builds_every_problem() -> None:
    text = (DOCKER / "docker-bake.hcl").read_text()
    listed = re.search(r"matrix += \{ problem = \[(.*?)\] \}", text)
    assert listed
    assert sorted(re.findall(r'"([^"]+)"', listed[1])) == [path.name for path in PROBLEMS]
    base = re.search(r'variable "BASE_IMAGE" \{ default = "(.+)" \}', text)
    assert base
    for problem in PROBLEMS:
        assert f"ARG BASE_IMAGE={base[1]}\n" in (problem / "Dockerfile").read_text()


def test_the_image_lock_holds_every_requirement_at_its_version() -> None:
    wanted = pins((CHECKOUT / "requirements.txt").read_text())
    locked = pins((DOCKER / "locks" / "image.txt").read_text())
    assert wanted.items() <= locked.items(), "run: python docker/lock.py"
    assert "jupyterlab" in locked
    assert pins((DOCKER / "locks" / "torch-cuda.txt").read_text())["torch"] == TORCH
    assert pins((DOCKER / "locks" / "torch-cpu.txt").read_text()) == {"torch": f"{TORCH}+cpu"}


def test_what_run_sh_and_test_sh_install_is_locked_as_it_is_pinned() -> None:
    run = pins((CHECKOUT / "requirements.txt").read_text())
    dev = run | pins((CHECKOUT / "requirements-dev.txt").read_text())
    assert len(dev) > len(run) > 20
    for wanted, name in ((run, "run.txt"), (dev, "dev.txt")):
        locked = pins((DOCKER / "locks" / name).read_text())
        assert wanted.items() <= locked.items(), "run: python docker/lock.py"


def test_the_lock_of_the_cpu_build_is_made_from_the_page_of_its_index() -> None:
    lock = script("lock")
    digests = ["a" * 64, "b" * 64, "c" * 64, "d" * 64]
    tags = (
        "cp311-cp311-manylinux_2_28_x86_64", "cp314-cp314-manylinux_2_28_aarch64",
        "cp314-cp314t-manylinux_2_28_x86_64", "cp311-cp311-win_amd64",
    )  # fmt: skip
    page = "".join(
        f'<a href="/whl/cpu/torch-{TORCH}%2Bcpu-{tag}.whl#sha256={digest}">torch</a><br/>\n'
        for tag, digest in zip(tags, digests, strict=True)
    )
    assert lock.cpu_lock(page.replace(TORCH, "1.0") + page) == (
        f"torch=={TORCH}+cpu \\\n    --hash=sha256:{digests[0]} \\\n"
        f"    --hash=sha256:{digests[1]}\n"
    )
    with pytest.raises(ValueError, match="no CPU build"):
        lock.cpu_lock("")
    held = (DOCKER / "locks" / "torch-cpu.txt").read_text()
    assert held.count("--hash=sha256:") == 8


@names
def test_the_variants_lock_holds_exactly_the_packages_of_problem_toml(problem: Path) -> None:
    document = tomllib.loads((problem / "problem.toml").read_text())
    wanted = {p for table in document["variants"].values() for p in table.get("packages", ())}
    lock = (problem / "requirements-variants.txt").read_text()
    entries = script("install_variants").entries(lock)
    assert set(entries) == {package.replace("==", "-") for package in wanted}
    assert all("--hash=sha256:" in text for text in entries.values())


def test_every_locked_package_has_hashes() -> None:
    for path in (DOCKER / "locks").iterdir():
        text = path.read_text()
        parts = PIN.split(text)
        bodies = parts[3::3]
        assert bodies
        assert all("--hash=sha256:" in body for body in bodies), path


def test_pips_settings_are_handed_on_without_what_is_not_about_packages() -> None:
    settings = script("pip_settings")
    listed = (
        ":env:.cert='/etc/ssl/own.crt'\n:env:.default-timeout='180'\n"
        "global.extra-index-url='file:///opt/x/simple https://pip.example'\n"
        "global.find-links='/tmp'\nglobal.index-url='https://index.example/simple'\n"
    )
    found = settings.settings(listed)
    assert settings.configuration(found) == (
        "[global]\nindex-url = https://index.example/simple\n"
        "extra-index-url = file:///opt/x/simple https://pip.example\n"
        "find-links = /tmp\ncert = /run/secrets/ca.crt\n"
    )
    assert settings.local_folders(found) == ["/tmp"]  # those that are there
    assert settings.configuration({}) == "[global]\n"


@pytest.mark.parametrize("wish", ["", "latest"])
def test_an_unknown_nsight_source_is_refused(wish: str) -> None:
    done = subprocess.run(
        [str(DOCKER / "install-nsight.sh"), wish], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert done.stderr == f"error: NSIGHT={wish} is none of nvidia, debian, none; choose one\n"
