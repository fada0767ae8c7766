"""Where do the library versions of a problem's variants go? Each into a folder of its own.

python install_variants.py LOCK FOLDER     installs every entry of LOCK, with its hashes, without
                                           its dependencies, whole into FOLDER/<name>-<version>;
                                           what is there already stays

It stands alone: an image installs before the sources are copied, so that a change of them installs
nothing again.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ENTRY = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


def entries(lock: str) -> dict[str, str]:
    """`name-version` -> its lines of the lock, the hashes with it."""
    starts = list(ENTRY.finditer(lock))
    # A problem whose variants need no packages of their own has a lock without entries.
    ends = [match.start() for match in starts[1:]] + [len(lock)] * bool(starts)
    return {
        f"{match[1]}-{match[2]}": lock[match.start() : end]
        for match, end in zip(starts, ends, strict=True)
    }


def main() -> None:
    lock, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "-q"]

    def install(name: str, text: str) -> None:
        if (folder / name).exists():  # a layer before this one brought it
            return
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as one:
            one.write(text)
            one.flush()
            subprocess.run(
                [*command, "install", "--no-cache-dir", "--require-hashes", "--no-deps",
                 "--target", str(folder / name), "-r", one.name],
                check=True,
            )  # fmt: skip

    wanted = entries(lock.read_text(encoding="utf-8"))
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # each goes into a folder of its own
        list(pool.map(install, wanted, wanted.values()))
    # Archives that only a linker reads: 170 MB of Triton's profiling libraries.
    for archive in folder.rglob("*.a"):
        archive.unlink()


if __name__ == "__main__":
    main()
