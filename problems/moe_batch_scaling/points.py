"""What is one point of a sweep, and where is what was measured of it kept?

A point is one phase at one batch and one setting of every factor, run by one side (a backend of
ours, or a way of Hugging Face transformers). Everything that is known of it is one line of
`points.jsonl`, written when it is known; a file that is continued keeps what stands in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from common.errors import UsageError
from common.recording.run_folder import read_samples

Phase = Literal["prefill", "decode"]
Status = Literal["measured", "failed", "skipped"]
PHASES: tuple[Phase, ...] = ("prefill", "decode")
POINTS_FILE, PROFILES_FILE, SAMPLES_FILE = "points.jsonl", "profiles.jsonl", "samples.jsonl"


@dataclass(frozen=True)
class Point:
    """`sequence`: tokens of a prefill, or positions in the cache before a decode step.

    `weights` is how the experts are stored; `routing` is "router" (what the model's own router
    picks) or "skew-S", Zipf weights 1 / rank^S. `in_turn`: sampled in rounds of all batches of its
    phase, so that what drifts meets all batches alike; otherwise in rounds of one batch.
    """

    phase: Phase
    batch: int
    sequence: int
    top_k: int
    weights: str
    routing: str = "router"
    side: str = "auto"
    in_turn: bool = False

    def __post_init__(self) -> None:
        for name in ("batch", "sequence", "top_k"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; choose 1 or more")
        if self.phase not in PHASES:
            raise UsageError(f"no phase is called {self.phase!r}; choose from {', '.join(PHASES)}")

    @property
    def tokens(self) -> int:
        """Tokens that one pass brings through the experts."""
        return self.batch * (self.sequence if self.phase == "prefill" else 1)

    @property
    def setting(self) -> str:
        """All but the side: points of one setting see the same inputs."""
        return (
            f"{self.phase}-b{self.batch}-s{self.sequence}-k{self.top_k}-{self.weights}"
            f"-{self.routing}{'-in-turn' if self.in_turn else ''}"
        )

    @property
    def id(self) -> str:
        return f"{self.setting}-{self.side}"


@dataclass(frozen=True)
class Measured:
    """What is known of a point. `status`: measured, failed or skipped, with `reason`.

    `rounds` and `samples_ns` belong together: sides of one group are compared round by round.
    `touched` counts the distinct experts of each layer, meaned over the inputs. `baseline`: the
    others of the group are compared with this one. `runs`: the backend that `auto` chose here.
    `stopped`: why the group's rounds ended.
    """

    point: Point
    group: str
    status: Status
    reason: str = ""
    rounds: tuple[int, ...] = ()
    samples_ns: tuple[int, ...] = ()
    touched: tuple[float, ...] = ()
    touched_bytes: float | None = None
    imbalance: float | None = None
    entropy_bits: float | None = None
    baseline: bool = False
    runs: str = ""
    stopped: str = ""

    def line(self) -> dict[str, Any]:
        return {"id": self.point.id, **asdict(self)}


def from_line(line: Mapping[str, Any]) -> Measured:
    try:
        fields = {key: value for key, value in line.items() if key != "id"}
        fields["point"] = Point(**fields["point"])
        for name in ("rounds", "samples_ns", "touched"):
            fields[name] = tuple(fields[name])
        return Measured(**fields)
    except (KeyError, TypeError) as error:
        raise UsageError(
            f"a line of {POINTS_FILE} lacks or misuses {error}; take the sweep again"
        ) from error


def read_points(folder: Path) -> list[Measured]:
    """Every point of a folder in measured order; one that was measured again counts once."""
    found = {line["id"]: from_line(line) for line in read_samples(folder / POINTS_FILE)}
    return list(found.values())


def read_profiles(folder: Path) -> dict[str, dict[str, Any]]:
    """Point id -> what the profiled pass found (`stages.Profile` as a dictionary)."""
    return {str(line["id"]): line for line in read_samples(folder / PROFILES_FILE)}


class PointStore:
    """`points.jsonl` and its companions of one folder, appended to line by line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for name in (POINTS_FILE, PROFILES_FILE, SAMPLES_FILE):
            mend(folder / name)
        self.kept = {measured.point.id: measured for measured in read_points(folder)}
        self.profiled = read_profiles(folder)

    def done(self, points: Iterable[Point]) -> bool:
        return all(point.id in self.kept for point in points)

    def add(self, measured: Measured) -> None:
        self.kept[measured.point.id] = measured
        self._append(POINTS_FILE, measured.line())

    def add_sample(self, point: Point, round_: int, duration_ns: int) -> None:
        row = {"id": point.id, "round": round_, "duration_ns": duration_ns}
        self._append(SAMPLES_FILE, row)

    def add_profile(self, line: dict[str, Any]) -> None:
        self.profiled[str(line["id"])] = line
        self._append(PROFILES_FILE, line)

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        with (self.folder / name).open("ab") as stream:
            stream.write((json.dumps(line, allow_nan=False) + "\n").encode())


def mend(path: Path) -> None:
    """Take away what a killed run had begun to write: it must not swallow the next line."""
    if path.exists() and not (text := path.read_bytes()).endswith(b"\n"):
        path.write_bytes(text[: text.rfind(b"\n") + 1])
