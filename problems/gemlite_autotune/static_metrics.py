"""What follows from a compiled kernel and its grid, on one GPU, before anything is run?

Occupancy and waves are arithmetic on what the compiler says (origin "compiled"). Bytes in flight
and split-K traffic are counted from the tile (origin "modelled"), each with its rule below.
"""

from __future__ import annotations

from typing import Any

from common.floors.occupancy import Occupancy, occupancy, waves
from common.traces.sass import class_of
from problems.gemlite_autotune.devices import GpuDescription
from problems.gemlite_autotune.layers import Layer
from problems.gemlite_autotune.shipped_tables import Config

WIDTH_BYTES = {"128": 16, "64": 8, "32": 4, "U16": 2, "S16": 2, "U8": 1, "S8": 1}


def tile_bytes(layer: Layer, config: Config) -> int:
    """Bytes of A and of stored weights that one step of a block loads; scales left out."""
    weights = layer.weights
    a_bytes = config.block_m * config.block_k * weights.activation_bytes
    if weights.microscaling and weights.input_type == 17:
        a_bytes //= 2  # two activations to a byte
    return a_bytes + config.block_k * config.block_n * weights.bits // 8


def steps(family: str, layer: Layer, config: Config) -> int:
    """Steps of one block along K: trips of its loop where it has one."""
    if family == "GEMV":
        return 1
    if family == "GEMV_REVSPLITK":
        return 2
    return -(-layer.k // (config.block_k * (config.split_k or 1)))


def bytes_in_flight(family: str, layer: Layer, config: Config) -> int:
    """The most that one block can have asked for at once, by the rule of its family.

    A pipeline of s stages has s - 1 tiles under way; a loop without one asks for one tile;
    GEMV_REVSPLITK has no loop, so that both of its halves can be under way.
    """
    tile = tile_bytes(layer, config)
    if family in ("GEMV", "GEMV_REVSPLITK"):
        return tile * steps(family, layer, config)
    if family == "GEMV_SPLITK":
        return tile
    return tile * max(config.stages - 1, 1)


def split_traffic(family: str, layer: Layer, m: int, config: Config, output_bytes: int) -> int:
    """Bytes of zeroing the output and of adding parts to it; 0 where each output is stored once."""
    outputs, parts = m * layer.n * output_bytes, split_parts(family, layer, config)
    stored = parts == 1 and family not in ("GEMV", "GEMV_REVSPLITK")
    return 0 if stored else outputs + parts * outputs


def split_parts(family: str, layer: Layer, config: Config) -> int:
    """How many blocks add to one output."""
    if family in ("GEMV", "GEMV_REVSPLITK"):
        return -(-layer.k // (config.block_k * steps(family, layer, config)))
    return config.split_k or 1


def load_widths(instructions: dict[str, int]) -> dict[str, int]:
    """Global loads (LDG and LDGSTS) by bytes per lane."""
    found: dict[str, int] = {}
    for opcode, count in instructions.items():
        parts = opcode.split(".")
        if parts[0] in ("LDG", "LDGSTS"):
            width = next((WIDTH_BYTES[part] for part in parts if part in WIDTH_BYTES), 4)
            found[str(width)] = found.get(str(width), 0) + count
    return dict(sorted(found.items(), key=lambda item: int(item[0])))


def atomics(instructions: dict[str, int]) -> str:
    """How a kernel adds to its output: "red", "compare-and-swap", "returning" or "none"."""
    names = [opcode for opcode in instructions if class_of(opcode) in ("atomic", "reduction")]
    if any("CAS" in name for name in names):
        return "compare-and-swap"
    if any(class_of(name) == "reduction" for name in names):
        return "red"
    return "returning" if any(not name.startswith("ATOMS") for name in names) else "none"


def metrics(
    gpu: GpuDescription,
    family: str,
    layer: Layer,
    m: int,
    config: Config,
    grid: tuple[int, ...],
    resources: dict[str, int],
    instructions: dict[str, int],
    output_bytes: int,
) -> dict[str, Any]:
    """Everything that is known of the kernel on this GPU, ready for JSON."""
    fits: Occupancy = occupancy(
        gpu.capability, resources["threads"], resources["registers"], resources["shared_bytes"]
    )
    blocks = 1
    for size in grid:
        blocks *= size
    found: dict[str, Any] = {
        "can_launch": fits.can_launch,
        "blocks_per_sm": fits.blocks,
        "occupancy": round(fits.share, 4),
        "limiter": list(fits.limiter),
        "blocks_by": dict(fits.blocks_by),
        "grid_blocks": blocks,
        "steps": steps(family, layer, config),
        "split_bytes": split_traffic(family, layer, m, config, output_bytes),
        "atomics": atomics(instructions),
        "load_widths": load_widths(instructions),
    }
    in_flight = bytes_in_flight(family, layer, config)
    if fits.can_launch:
        over = waves(blocks, gpu.sm_count, fits.blocks)
        resident = min(fits.blocks, -(-blocks // gpu.sm_count))
        found |= {
            "waves": round(over.count, 4),
            "tail": round(over.tail, 4),
            "in_flight_bytes_per_sm": in_flight * resident,
        }
    else:
        found["refused"] = (
            f"needs {resources['shared_bytes']} bytes of shared memory, a block may have "
            f"{gpu.shared_bytes_per_block}"
            if resources["shared_bytes"] > gpu.shared_bytes_per_block
            else "its registers do not fit an SM"
        )
    return found
