"""How does a fresh machine get everything? Makes `.venv` with pinned packages, once.

Runs before anything is installed: standard library only, any Python ≥ 3.11. Called by run.sh and
test.sh as `python3 common/setup_environment.py [--dev]`. A stamp in the environment says what was
installed; while it matches nothing is done. Each variant's library version goes into a folder of
its own under `.venv/variants`, to be put on the path of that variant's process alone.

Every file that is installed must have a hash that a lock lists (docker/locks, and each problem's
requirements-variants.txt; docker/lock.py writes them).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "docker" / "locks"
TORCH = "2.13.0"
PYTORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PLAIN_TORCH_NOTICE = (
    "PyTorch's CPU build was not found or not reached; taking the plain one (on Linux x86-64 it "
    "brings CUDA libraries: about 3 GB to download, 7 GB on disk)"
)
# How pip words that it reached nobody; a proxy's refusal (403) is "ProxyError".
NO_NETWORK = (
    "Failed to establish a new connection",
    "NewConnectionError",
    "NameResolutionError",
    "Temporary failure in name resolution",
    "ConnectTimeoutError",
    "ConnectionResetError",
    "ReadTimeoutError",
    "ProxyError",
    "ProtocolError",
    "SSLError",
)
PRECONDITION = 3
INTERRUPTED = 130


class SetupFailed(Exception):
    """One line that ends in the next action."""


def has_nvidia_gpu() -> bool:
    """Is there a GPU for a CUDA build of torch? WORKLOG_TORCH=cpu or cuda decides instead."""
    wish = os.environ.get("WORKLOG_TORCH")
    if wish:
        return wish == "cuda"
    if shutil.which("nvidia-smi") is None:
        return False
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"], check=False, capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return False  # a driver that does not answer cannot compute either
    return done.returncode == 0 and "GPU" in done.stdout


def variant_packages(root: Path) -> list[str]:
    """Every pinned package that a problem's variant asks for, each once."""
    found: set[str] = set()
    for path in sorted((root / "problems").glob("*/problem.toml")):
        try:
            variants = tomllib.loads(path.read_text(encoding="utf-8")).get("variants", {})
            for table in variants.values():
                found.update(table.get("packages", ()))
        except (ValueError, AttributeError, TypeError) as error:
            where = path.relative_to(root)
            raise SetupFailed(f"{where}: {error}; mend the file and run this again") from error
    return sorted(found)


def fingerprint(root: Path, dev: bool, gpu: bool) -> str:
    """What the stamp holds: changes whenever another environment would be made.

    The folder is part of it: a copied environment starts the programs of the place it came from.
    """
    parts = [str(root.resolve()), platform.python_version(), TORCH, f"gpu={gpu}"]
    parts += variant_packages(root)
    names = ["pyproject.toml", "requirements.txt"] + (["requirements-dev.txt"] if dev else [])
    parts += [(root / name).read_text(encoding="utf-8") for name in names]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def is_current(venv: Path, root: Path, dev: bool, gpu: bool) -> bool:
    """A development environment serves for running too."""
    stamp = venv / ".worklog-setup"
    if not stamp.exists() or not (venv / "bin" / "worklog").exists():
        return False
    if not all(variant_folder(venv, package).is_dir() for package in variant_packages(root)):
        return False
    accepted = {fingerprint(root, True, gpu)}
    if not dev:
        accepted.add(fingerprint(root, False, gpu))
    return stamp.read_text(encoding="utf-8").strip() in accepted


def variant_folder(venv: Path, package: str) -> Path:
    return venv / "variants" / package.replace("==", "-")


class Pip:
    """pip of the environment. Its output goes to a log; a failure becomes one line."""

    def __init__(self, venv: Path) -> None:
        self.python, self.log = venv / "bin" / "python", venv / "setup.log"

    def attempt(self, *arguments: str) -> bool:
        command = [str(self.python), "-m", "pip", "--disable-pip-version-check", "--no-input"]
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"\n$ pip {' '.join(arguments)}\n")
            log.flush()
            done = subprocess.run(
                [*command, *arguments], check=False, stdout=log, stderr=subprocess.STDOUT
            )
        return done.returncode == 0

    def install(self, what: str, *arguments: str) -> None:
        print(f"setup: installing {what}", file=sys.stderr, flush=True)
        if not self.attempt("install", *arguments):
            raise SetupFailed(self.explanation(what))

    def last_output(self) -> str:
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return text[text.rfind("\n$ pip ") :]

    def lacks_network(self) -> bool:
        return any(sign in self.last_output() for sign in NO_NETWORK)

    def explanation(self, what: str) -> str:
        tail = self.last_output()
        where = f"see {self.log.name} in .venv"
        if "No space left on device" in tail:
            return f"the disk is full while installing {what}; free some GB and run this again"
        if self.lacks_network():
            return f"no network to install {what} from; connect (or configure pip) and run again"
        if "DO NOT MATCH THE HASHES" in tail:
            return (
                f"a package source has another build of {what} than the one that is locked; "
                f"{where}, take the published index and run this again"
            )
        if "No matching distribution" in tail:
            version = platform.python_version()
            return f"no package source has {what} for Python {version}; {where}, mend and run again"
        return f"installing {what} failed; {where}, mend and run this again"


def make_venv(venv: Path) -> None:
    if (venv / "bin" / "python").exists():
        # Not with another Python's packages: the stamp speaks of the one that runs this.
        code = "import pip, platform; print(platform.python_version())"
        command = [str(venv / "bin" / "python"), "-c", code]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode == 0 and done.stdout.strip() == platform.python_version():
            return
    print("setup: making .venv", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "venv", "--clear", str(venv)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        text = done.stdout + done.stderr
        if "ensurepip" in text:
            raise SetupFailed(
                "this Python cannot make virtual environments; install its venv package "
                "(on Debian or Ubuntu: apt-get install python3-venv) and run this again"
            )
        if "No space left" in text:
            raise SetupFailed("the disk is full; free some GB and run this again")
        last = text.strip().splitlines()[-1] if text.strip() else "no message"
        raise SetupFailed(f"making {venv.name} failed ({last}); mend that and run this again")


def locked(lock: Path) -> tuple[str, ...]:
    """Arguments of pip: what this lock lists, whole, and no file without a listed hash."""
    return ("--no-deps", "--require-hashes", "-r", str(lock))


def install_torch(pip: Pip, gpu: bool) -> None:
    """The pinned torch: CUDA's build for a GPU, else the CPU build from whoever has it first."""
    plain = locked(LOCKS / "torch-cuda.txt")  # on a Mac: the only build there is
    if gpu:
        pip.install(f"torch {TORCH} for CUDA (several GB)", *plain)
        return
    print(f"setup: installing torch {TORCH}, CPU build", file=sys.stderr, flush=True)
    cpu = locked(LOCKS / "torch-cpu.txt")
    if pip.attempt("install", *cpu) or pip.attempt(
        "install", "--index-url", PYTORCH_CPU_INDEX, *cpu
    ):
        return
    print(f"setup: {PLAIN_TORCH_NOTICE}", file=sys.stderr, flush=True)
    pip.install(f"torch {TORCH}", *plain)


def lock_entries(lock: Path) -> dict[str, str]:
    """`name==version` -> its lines of a lock, the hashes with them."""
    text = lock.read_text(encoding="utf-8") + "\n"
    entries = re.findall(r"^\w[^\n]*\n(?:[ \t][^\n]*\n)*", text, re.MULTILINE)
    return {re.split(r"[\s;\\]", entry, maxsplit=1)[0]: entry for entry in entries}


def variant_locks(root: Path) -> dict[str, str]:
    """The entries of all problems' locks."""
    found: dict[str, str] = {}
    for path in sorted((root / "problems").glob("*/requirements-variants.txt")):
        found |= lock_entries(path)
    return found


def install_variants(pip: Pip, venv: Path, root: Path) -> None:
    """Each package, without its dependencies, whole into `<venv>/variants/<name>-<version>`."""
    (venv / "variants").mkdir(exist_ok=True)
    locks = variant_locks(root)
    for package in variant_packages(root):
        target = variant_folder(venv, package)
        if target.is_dir():
            continue
        part = target.with_name(target.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        if package in locks:
            lock = part.with_suffix(".lock")
            lock.write_text(locks[package], encoding="utf-8")
            pip.install(package, "--target", str(part), *locked(lock))
            lock.unlink()
        else:  # of a problem that nobody has locked yet
            pip.install(package, "--no-deps", "--target", str(part), package)
        part.rename(target)


def set_up(root: Path, dev: bool) -> bool:
    """Make the environment; False if it was there already. Raises SetupFailed."""
    venv = root / ".venv"
    gpu = has_nvidia_gpu()
    wanted = fingerprint(root, dev, gpu)  # before the work: it reads every problem
    if is_current(venv, root, dev, gpu):
        return False
    # From here on it is neither the old one nor the new one.
    (venv / ".worklog-setup").unlink(missing_ok=True)
    make_venv(venv)
    pip = Pip(venv)
    install_torch(pip, gpu)
    pip.install("the pinned packages", *locked(LOCKS / ("dev.txt" if dev else "run.txt")))
    pip.install("worklog itself", "--no-deps", "--no-build-isolation", "-e", str(root))
    install_variants(pip, venv, root)
    stamp = venv / ".worklog-setup"
    stamp.write_text(wanted + "\n", encoding="utf-8")
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description="Make .venv with everything pinned, once.")
    parser.add_argument("--dev", action="store_true", help="also what test.sh needs")
    arguments = parser.parse_args()
    try:
        if set_up(ROOT, arguments.dev):
            print("setup: done", file=sys.stderr)
        return 0
    except SetupFailed as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        print(
            f"error: set-up cannot write here ({error}); mend that and run again", file=sys.stderr
        )
    except KeyboardInterrupt:
        print("error: set-up was stopped; run it again to go on", file=sys.stderr)
        return INTERRUPTED
    return PRECONDITION


if __name__ == "__main__":
    sys.exit(main())
