"""Does NOTICE list every pinned package, at its version, with the licence that it states?"""

from __future__ import annotations

import importlib.util
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

CHECKOUT = Path(__file__).parents[2]


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("notice", CHECKOUT / "docker" / "notice.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def installed(line: str) -> bool:
    try:
        version(line.split()[0])
    except PackageNotFoundError:
        return False
    return True


def test_the_notice_is_current() -> None:
    """Of what is not installed here (another platform), the version alone is compared."""
    made, kept = (
        text.splitlines()
        for text in (script().notice(), (CHECKOUT / "NOTICE").read_text(encoding="utf-8"))
    )
    assert len(made) == len(kept), "run: python docker/notice.py"
    for new, old in zip(made, kept, strict=True):
        same = new == old or (new.split(": ")[0] == old.split(": ")[0] and not installed(new))
        assert same, f"run: python docker/notice.py ({old} -> {new})"


def test_both_builds_of_torch_are_listed_and_no_licence_is_empty() -> None:
    text = (CHECKOUT / "NOTICE").read_text(encoding="utf-8")
    assert text.count("\ntorch 2.13.0+cpu: ") == text.count("\ntorch 2.13.0: ") == 1
    listed = [line for line in text.splitlines() if ": " in line]
    assert len(listed) > 60 and all(line.partition(": ")[2].strip() for line in listed)
