"""Opening a file never runs code, and no small file ends the process or eats the machine."""

from __future__ import annotations

import copyreg
import gzip
import os
import pickle
import resource
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from helpers.hostile_pickles import HOSTILE, MARKER, within
from helpers.snapshots import event, snapshot

from common.errors import UsageError
from common.traces.memory_snapshot import read_memory_snapshot
from common.traces.pickle_scan import PickleRefused
from common.traces.plain_pickle import _Refusing, load_plain


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("packed", [False, True])
def test_a_hostile_pickle_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, packed: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    data = HOSTILE[name]
    file = tmp_path / "snapshot.pickle"
    file.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(UsageError, match="was not opened") as caught:
        read_memory_snapshot(file)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2
    assert not (tmp_path / MARKER).exists()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_that_is_cut_is_refused_too(name: str) -> None:
    """The way through the Python unpickler has the same walls."""
    with pytest.raises(PickleRefused):
        load_plain(HOSTILE[name][:-1])


@pytest.mark.parametrize(
    "name", ["os.system by REDUCE", "builtins.eval", "OBJ", "persistent id", "extension code 1"]
)
def test_the_second_wall_holds_alone(name: str) -> None:
    import io

    with pytest.raises((PickleRefused, pickle.UnpicklingError, ValueError)):
        _Refusing(io.BytesIO(HOSTILE[name])).load()


def test_a_registered_extension_code_is_refused() -> None:
    """The C unpickler gives cached extensions out without asking `find_class`."""
    copyreg.add_extension("os", "system", 0x70)
    try:
        data = within(b"\x82\x70\x8c\x02ls\x85R")
        with pytest.raises(PickleRefused, match="EXT1"):
            load_plain(data)
    finally:
        copyreg.remove_extension("os", "system", 0x70)


def test_text_that_looks_like_instructions_is_text(tmp_path: Path) -> None:
    value = snapshot([], [event("alloc", 1 << 30, 5, frames=[])])
    value["allocator_settings"] = {"PYTORCH_CUDA_ALLOC_CONF": "cos\nsystem\n(R.\x93\x81b" * 500}
    file = tmp_path / "snapshot.pickle"
    file.write_bytes(pickle.dumps(value))
    assert "cos\nsystem" in read_memory_snapshot(file).allocator_settings["PYTORCH_CUDA_ALLOC_CONF"]


@pytest.mark.parametrize(
    "inner",
    [
        b"]" * 1_000_000 + b"a" * 999_999,  # lists within one another
        b"}" + b"(K\x01}" * 300_000 + b"u" * 300_000,
        b"](" + b"]" * 200_000 + b"e",
    ],
    ids=["lists in lists", "dictionaries in dictionaries", "a long list"],
)
def test_deep_nesting_where_nothing_looks_is_harmless(tmp_path: Path, inner: bytes) -> None:
    file = tmp_path / "snapshot.pickle"
    file.write_bytes(within(inner))
    assert read_memory_snapshot(file).allocator_settings == {}


def test_deep_nesting_in_place_of_segments_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "snapshot.pickle"
    file.write_bytes(b"\x80\x04}\x8c\x08segments" + b"]" * 500_000 + b"a" * 499_999 + b"s.")
    with pytest.raises(UsageError, match="no dictionaries"):
        read_memory_snapshot(file)


def test_one_list_repeated_without_end_is_an_error(tmp_path: Path) -> None:
    """A few bytes for each repeat of a long history: quadratic work for a reader that walks it."""
    history = pickle.dumps([event("alloc", 1 << 30, 5)] * 1000, protocol=4)[2:-1]
    start = history.index(b"]")  # behind the frame's length
    data = b"\x80\x04}(\x8c\x08segments]\x8c\x0ddevice_traces]" + (
        b"(" + history[start:] + b"r\xf0\x00\x00\x00" + b"j\xf0\x00\x00\x00" * 5000 + b"eu."
    )
    file = tmp_path / "snapshot.pickle"
    file.write_bytes(data)
    with pytest.raises(UsageError, match="more elements than bytes"):
        read_memory_snapshot(file)


def test_frames_shared_by_many_events_are_fine(tmp_path: Path) -> None:
    frames = [{"name": "f", "filename": "m.py", "line": 1}] * 1000
    events = [event("alloc", 1 << 30, 5, frames=list(frames)) for _ in range(3)]
    value = snapshot([], events)
    file = tmp_path / "snapshot.pickle"
    file.write_bytes(pickle.dumps(value))
    assert read_memory_snapshot(file).events_with_frames == 3


def test_an_archive_that_unpacks_without_end_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from common.traces import byte_source

    monkeypatch.setattr(byte_source, "RATIO_CHECKED_FROM_BYTES", 1 << 20)
    file = tmp_path / "bomb.gz"
    file.write_bytes(gzip.compress(b"\0" * (8 << 20)))
    with pytest.raises(UsageError, match="no recording does"):
        read_memory_snapshot(file)


def test_a_memo_bomb_does_not_allocate_a_table(tmp_path: Path) -> None:
    """In a process of its own, under a limit of memory that the table would break."""
    file = tmp_path / "snapshot.pickle"
    file.write_bytes(HOSTILE["memo slot at 2 GB"])
    code = (
        "import sys, pathlib\n"
        "from common.errors import UsageError\n"
        "from common.traces.memory_snapshot import read_memory_snapshot\n"
        "try:\n    read_memory_snapshot(pathlib.Path(sys.argv[1]))\n"
        "except UsageError as error:\n    print(error)\n"
    )
    limit = 2 << 30

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    done = subprocess.run(
        [sys.executable, "-c", code, str(file)],
        capture_output=True,
        text=True,
        preexec_fn=limited,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0 and "memo slot beyond the end" in done.stdout


@pytest.mark.parametrize("instruction", [b"\x96", b"\x8d", b"\x8e"])  # bytearray, text, bytes
def test_a_length_beyond_the_file_is_never_allocated(tmp_path: Path, instruction: bytes) -> None:
    file = tmp_path / "cut.pickle"
    begun = b"\x80\x04}(\x8c\x08segments]\x8c\x01x" + instruction
    file.write_bytes(begun + (1 << 44).to_bytes(8, "little") + b"the end")
    tracemalloc.start()
    snapshot_ = read_memory_snapshot(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "cut short" in snapshot_.warnings[0] and peak < 8 << 20
