"""How do other tools get onto this machine, to be measured? Each into an environment of its own.

    python tests/benchmarks/peers.py [--into DIR] [PEER …]

Pinned, on demand, and no part of the project's own environment. HTA 0.5.0 does not pin its own
dependencies and fails on some traces with pandas 3, so pandas is pinned for it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / ".cache" / "peers"  # ignored by git
PANDAS = ("pandas==2.3.3", "numpy==2.4.6")
PEERS: dict[str, tuple[str, ...]] = {
    "hta": ("HolisticTraceAnalysis==0.5.0", "ijson==3.6.0", *PANDAS),
    "traceinsight": ("traceinsight==0.6.1", "ijson==3.6.0", *PANDAS),
}


def python_of(peer: str, into: Path = PLACE) -> Path | None:
    """The interpreter of an installed peer; None where it is not installed."""
    folder = into / peer
    stamp = folder / "installed"
    fits = stamp.exists() and stamp.read_text(encoding="utf-8") == "\n".join(PEERS[peer])
    return folder / "bin" / "python" if fits else None


def install(peer: str, into: Path = PLACE) -> Path:
    """Install a peer unless it is there; returns its interpreter."""
    there = python_of(peer, into)
    if there is not None:
        return there
    folder = into / peer
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *PEERS[peer]], check=True)
    (folder / "installed").write_text("\n".join(PEERS[peer]), encoding="utf-8")
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peers", nargs="*", choices=[[], *PEERS], help="default: all")
    parser.add_argument("--into", type=Path, default=PLACE)
    given = parser.parse_args()
    for peer in given.peers or PEERS:
        print(f"{peer}: {install(peer, given.into).parent.parent}")


if __name__ == "__main__":
    main()
