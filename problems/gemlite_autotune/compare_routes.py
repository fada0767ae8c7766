"""Is the route map what GemLite's own forward does? Thousands of random layers, both asked.

    python -m problems.gemlite_autotune.compare_routes --layers 10000 [--seed N] [--gpu rtx-4090]

Prints one JSON document: layers, table hits, per family, and every disagreement.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from typing import Any

from common.errors import WorklogError
from problems.gemlite_autotune.described_device import described
from problems.gemlite_autotune.devices import describe
from problems.gemlite_autotune.layers import ACTIVATIONS, FORMATS, Layer
from problems.gemlite_autotune.routes import layer_of, route
from problems.gemlite_autotune.shipped_tables import Tables, shipped_tables, tag_for_gpu

GROUPS = (32, 64, 128, 256)
SIZES = (256, 512, 768, 1024, 2048, 3072, 4096, 5120, 6144, 8192, 11008, 14336)


def random_case(draw: random.Random, tables: Tables, tag: str | None) -> tuple[Layer, int]:
    """Half of the cases from shapes that the GPU's table knows, half from anywhere."""
    m = draw.choice((draw.randint(1, 8), draw.randint(1, 130), draw.randint(1, 6000)))
    if tag is not None and draw.random() < 0.5:
        rows = tables.by_gpu[tag]
        family = draw.choice([name for name, entries in rows.items() if entries])
        key = draw.choice(list(rows[family]))
        layer = layer_of(key)
        if layer is not None:
            changed = Layer(layer.n, layer.k, layer.format, layer.group, draw.choice(ACTIVATIONS))
            return changed, draw.choice((m, key.m, max(1, key.m - 1)))
    weights = draw.choice(list(FORMATS.values()))
    group = draw.choice(GROUPS) if weights.group == "given" else None
    n = draw.choice(SIZES) if draw.random() < 0.8 else 32 * draw.randint(1, 300)
    return Layer(n, draw.choice(SIZES), weights.name, group, draw.choice(ACTIVATIONS)), m


def compare(layers: int, seed: int, gpu_id: str) -> dict[str, Any]:
    gpu, tables = describe(gpu_id), shipped_tables()
    tag = tag_for_gpu(gpu.name, tuple(tables.by_gpu))
    draw = random.Random(seed)
    families: Counter[str] = Counter()
    formats: Counter[str] = Counter()
    hits, failing, different = 0, 0, []
    with described(gpu):
        from problems.gemlite_autotune.launches import intercept, use_tables

        use_tables(shipped=True)
        for number in range(layers):
            layer, m = random_case(draw, tables, tag)
            ours, theirs = route(layer, m, gpu, tables), intercept(layer, m)
            expected = (ours.winner,) if ours.winner is not None else ours.candidates
            families[theirs.family] += 1
            formats[layer.format] += 1
            hits += ours.hit
            failing += not theirs.configs
            # A list of one is launched without a benchmark, whether it is a hit or not.
            if (ours.family, expected) != (theirs.family, theirs.parsed):
                different.append(f"{layer} M={m}: {ours.family} / {theirs.family}")
            if sys.stderr.isatty() and number % 100 == 0:
                print(f"\r{number} of {layers}", end="", file=sys.stderr, flush=True)
    return {
        "gpu": gpu.id,
        "seed": seed,
        "layers": layers,
        "table_hits": hits,
        "without_any_configuration": failing,
        "families": dict(sorted(families.items())),
        "formats": dict(sorted(formats.items())),
        "disagreements": different,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=20261121)
    parser.add_argument("--gpu", default="rtx-4090")
    arguments = parser.parse_args()
    try:
        found = compare(arguments.layers, arguments.seed, arguments.gpu)
    except WorklogError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(found, indent=1))
    return 1 if found["disagreements"] else 0


if __name__ == "__main__":
    sys.exit(main())
