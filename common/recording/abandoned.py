"""What did a run leave that was killed as it began, and when may the next one remove it?

A folder that is being made is locked by the process that makes it, and the kernel ends the lock
with the process: whatever its id means by now, and in whichever container it ran.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

HIDDEN = ".new-"
# What a killed process can leave beside runs: a hidden folder with at most a manifest in it, and
# the file that tried whether the place can be written to.
_LEFT_FOLDER = re.compile(re.escape(HIDDEN) + r"\d+-[0-9a-f]{8}")
_LEFT_FILE = re.compile(r"\.write-test-\d+")
_MADE_FIRST = frozenset(("manifest.json", "manifest.json.part"))
ABANDONED_AFTER_S = 60.0  # between making a folder and locking it lie microseconds


def remove_abandoned(parent: Path) -> tuple[Path, ...]:
    """Remove what runs that were killed as they began left in `parent`; returns what that was.

    Only what has our own naming, is a minute old and holds nothing but a first manifest.
    """
    import shutil  # slow to load, and who reads a run needs none of it

    removed = []
    oldest = time.time() - ABANDONED_AFTER_S
    for path in sorted(parent.iterdir()):
        try:
            facts = path.lstat()
            if facts.st_mtime > oldest:
                continue
            if stat.S_ISREG(facts.st_mode) and _LEFT_FILE.fullmatch(path.name):
                path.unlink()
            elif stat.S_ISDIR(facts.st_mode) and _LEFT_FOLDER.fullmatch(path.name):
                with _locked(path):
                    if not {held.name for held in path.iterdir()} <= _MADE_FIRST:
                        continue
                    shutil.rmtree(path)
            else:
                continue
        except OSError:  # locked by a living process, gone by now, or not ours to remove
            continue
        removed.append(path)
    return tuple(removed)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Raises OSError where another process holds the lock, or the file system has none."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


@contextmanager
def locked_if_possible(folder: Path) -> Iterator[None]:
    """A file system without locks makes runs all the same: there nothing can be locked to remove
    it either."""
    with ExitStack() as stack:
        try:
            stack.enter_context(_locked(folder))
        except OSError:
            pass
        yield
