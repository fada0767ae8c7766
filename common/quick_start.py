"""What can a command that only reads files leave out of its start? A small diff is mostly that."""

from __future__ import annotations

import os
import sys

_NEWER_TYPING = "typing_extensions"


def start_reading() -> None:
    """To be called before NumPy and msgspec are first imported; does no harm later."""
    # Readers multiply no matrices: starting NumPy's threads takes longer than reading a trace.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if _NEWER_TYPING in sys.modules or "msgspec" in sys.modules:
        return
    # msgspec takes three names from there if it can, else the same ones from `typing`. To import
    # it takes as long as the rest of msgspec.
    sys.modules[_NEWER_TYPING] = None  # type: ignore[assignment]  # Python's way to say: not there
    try:
        import msgspec  # noqa: F401
    finally:
        del sys.modules[_NEWER_TYPING]
