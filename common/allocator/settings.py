"""Which sizes does the allocator round to, and which options change it? The rules without state."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from common.errors import UsageError

MIB = 1 << 20
MIN_BLOCK_BYTES = 512  # AllocatorConfig.h: kMinBlockSize
SMALL_LIMIT_BYTES = MIB  # AllocatorConfig.h: kSmallSize
SMALL_SEGMENT_BYTES = 2 * MIB  # AllocatorConfig.h: kSmallBuffer
LARGE_SEGMENT_BYTES = 20 * MIB  # AllocatorConfig.h: large_segment_size_, before 2026 kLargeBuffer
MIN_LARGE_BYTES = 10 * MIB  # AllocatorConfig.h: kMinLargeAlloc
ROUND_LARGE_BYTES = 2 * MIB  # AllocatorConfig.h: kRoundLarge
UNLIMITED_BYTES = (1 << 64) - 1  # std::numeric_limits<size_t>::max(), in snapshots -1
MAX_REQUEST_BYTES = 1152921504606846976  # CUDACachingAllocator.cpp: allocate, one_exa_bytes
DIVISION_INTERVALS = 16  # AllocatorConfig.cpp: kRoundUpPowerOfTwoIntervals, 1 MiB to 64 GiB

Divisions = tuple[int, ...]
NO_DIVISIONS: Divisions = (0,) * DIVISION_INTERVALS


@dataclass(frozen=True)
class Settings:
    """The allocator's options, in bytes. `from_text` reads PYTORCH_CUDA_ALLOC_CONF.

    `memory_fraction` is no key of that text until 2.13: torch.cuda.set_per_process_memory_fraction
    sets it. None: no limit but the driver's, and no garbage collection either.
    """

    max_split_bytes: int = UNLIMITED_BYTES
    max_non_split_rounding_bytes: int = LARGE_SEGMENT_BYTES
    large_segment_bytes: int = LARGE_SEGMENT_BYTES
    roundup_power2_divisions: Divisions = NO_DIVISIONS
    garbage_collection_threshold: float = 0.0
    expandable_segments: bool = False
    graph_capture_record_stream_reuse: bool = False
    memory_fraction: float | None = None
    text: str = ""

    @classmethod
    def from_text(cls, text: str) -> Settings:
        """Read the comma-separated options. UsageError names the option that is wrong.

        Models `AllocatorConfig.cpp: AcceleratorAllocatorConfig::parseArgs`; options of pinned host
        memory are accepted and have no effect here. `large_segment_size_mb` is read first, because
        it is the least value of two others.
        """
        given = _options(text)
        large = _mib(given, "large_segment_size_mb", 20, 20)
        least = large // MIB
        settings = cls(
            large_segment_bytes=large,
            max_split_bytes=_mib(given, "max_split_size_mb", None, least),
            max_non_split_rounding_bytes=_mib(given, "max_non_split_rounding_mb", least, least),
            roundup_power2_divisions=_divisions(given.get("roundup_power2_divisions")),
            garbage_collection_threshold=_fraction(given, "garbage_collection_threshold", 0.0),
            expandable_segments=_flag(given, "expandable_segments"),
            graph_capture_record_stream_reuse=_flag(given, "graph_capture_record_stream_reuse"),
            text=text,
        )
        if "per_process_memory_fraction" in given:
            fraction = _fraction(given, "per_process_memory_fraction", 1.0)
            return replace(settings, memory_fraction=fraction)
        return settings

    @property
    def plain_rounding(self) -> bool:
        """Every size is rounded to 512 bytes: no divisions of powers of two."""
        return max(self.roundup_power2_divisions) <= 1

    def divisions_of(self, size: int) -> int:
        """How many steps between two powers of two sizes of this order are rounded to.

        Models `AllocatorConfig.cpp: AcceleratorAllocatorConfig::roundup_power2_divisions`: one
        figure for each power of two from 1 MiB (and everything below) to 32 GiB (and above).
        """
        interval = max(size.bit_length() - 1 - 20, 0)
        return self.roundup_power2_divisions[min(interval, DIVISION_INTERVALS - 1)]

    def round_size(self, size: int) -> int:
        """The size of the block for a request. Models `CUDACachingAllocator.cpp: round_size`."""
        if size < MIN_BLOCK_BYTES:
            return MIN_BLOCK_BYTES
        divisions = self.divisions_of(size)
        if divisions > 1 and size > MIN_BLOCK_BYTES * divisions:
            return next_division(size, divisions)
        return -(-size // MIN_BLOCK_BYTES) * MIN_BLOCK_BYTES

    def segment_size(self, rounded: int) -> int:
        """How much is asked of the driver for a block that no free one fits.

        Models `CUDACachingAllocator.cpp: get_allocation_size`.
        """
        if rounded <= SMALL_LIMIT_BYTES:
            return SMALL_SEGMENT_BYTES
        if rounded < MIN_LARGE_BYTES:
            return self.large_segment_bytes
        return -(-rounded // ROUND_LARGE_BYTES) * ROUND_LARGE_BYTES

    def should_split(self, block: int, rounded: int, small: bool, expandable: bool) -> bool:
        """Whether what a block of `block` bytes has over `rounded` becomes a free block.

        Models `CUDACachingAllocator.cpp: should_split`. A large block keeps up to 1 MiB that it was
        not asked for. `expandable` is the option, not the block: it changes the rule for all.
        """
        rest = block - rounded
        if small or expandable:
            return rest >= MIN_BLOCK_BYTES
        return rounded < self.max_split_bytes and rest > SMALL_LIMIT_BYTES

    def oversize_refused(self, block: int, rounded: int) -> bool:
        """A free block that fits and may not be used. Models the end of `get_free_block`."""
        limit = self.max_split_bytes
        if rounded < limit:
            return block >= limit
        return block >= rounded + self.max_non_split_rounding_bytes


def next_division(size: int, divisions: int) -> int:
    """The size rounded up to one of `divisions` steps between two powers of two.

    Models `CUDACachingAllocator.cpp: roundup_power2_next_division`.
    """
    if size & (size - 1) == 0:
        return size
    floor = 1 << (size.bit_length() - 1)
    step = floor >> (divisions.bit_length() - 1)
    if step == 0:
        return floor << 1
    down = size & ~(step - 1)
    return size if down == size else down + step


def _options(text: str) -> dict[str, str]:
    """Models `AllocatorConfig.h: ConfigTokenizer`: blanks do not count, lists are in brackets."""
    found: dict[str, str] = {}
    rest = re.sub(r"\s", "", text)
    for part in re.findall(r"[^,\[]+(?:\[[^\]]*\])?", rest):
        key, colon, value = part.partition(":")
        if not colon or not value:
            raise UsageError(f"allocator option {part!r} has no value; write it as name:value")
        found[key] = value
    return found


def _mib(given: dict[str, str], key: str, default: int | None, least: int) -> int:
    text = given.get(key)
    if text is None:
        return UNLIMITED_BYTES if default is None else default * MIB
    if not text.isdigit() or int(text) < least:
        raise UsageError(f"allocator option {key}:{text} is refused; give at least {least} (MiB)")
    return int(text) * MIB


def _fraction(given: dict[str, str], key: str, default: float) -> float:
    text = given.get(key)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 < value <= 1.0:
        raise UsageError(f"allocator option {key}:{text} is refused; give a share in (0, 1)")
    return value


def _flag(given: dict[str, str], key: str) -> bool:
    text = given.get(key, "False")
    if text not in ("True", "False"):
        raise UsageError(f"allocator option {key}:{text} is refused; give True or False")
    return text == "True"


def _divisions(text: str | None) -> Divisions:
    """Models `AllocatorConfig.cpp: parseRoundUpPower2Divisions`. `256:2` counts in MiB."""
    if text is None:
        return NO_DIVISIONS
    if not text.startswith("["):
        return (_power_of_two(text),) * DIVISION_INTERVALS
    out, last, first = [0] * DIVISION_INTERVALS, 0, True
    for part in text.strip("[]").split(","):
        bound, _, steps = part.partition(":")
        value = _power_of_two(steps)
        if bound == ">":
            out[last + 1 :] = [value] * (DIVISION_INTERVALS - last - 1)
            continue
        last = min(_power_of_two(bound).bit_length() - 1, DIVISION_INTERVALS - 1)
        if first:
            out[:last] = [value] * last
            first = False
        out[last] = value
    return tuple(out)


def _power_of_two(text: str) -> int:
    value = int(text) if text.isdigit() else -1
    if value < 0 or value & (value - 1):
        raise UsageError(
            f"roundup_power2_divisions has {text!r}; give powers of two, as [256:2,512:4,>:8]"
        )
    return value
