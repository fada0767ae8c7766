"""Does torchao's float8 dequantisation run as an opaque operator? (float8_weight_only)

torchao 0.12 and 0.13 register `dequantize_affine_float8` as an operator that the compiler cannot
look into, so it runs as separate passes over float32 copies of each weight. From 0.14 on it is
plain Python and leaves no operator of this name.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from common.pages.detectors.host_groups import inside, launched_within
from common.pages.detectors.signature import Fact, Signature, share
from common.traces.intervals import total_ns
from common.traces.model import HostKind, Trace
from common.traces.summary import cpu_time_ns

OPERATOR = "torchao::dequantize_affine_float8"
SMALLEST_SHARE = 0.05  # of the operators' time; a trace that hardly calls it has another problem


def find_opaque_float8(trace: Trace) -> Signature | None:
    numbers = [n for n, name in enumerate(trace.names) if name == OPERATOR]
    host = trace.host
    rows = np.flatnonzero((host.kind == HostKind.OPERATOR) & np.isin(host.name, numbers))
    if not len(rows):
        return None
    if trace.has_gpu_events:
        launched = launched_within(trace, rows)
        spent, whole = total_ns(trace.gpu.duration_ns[launched]), total_ns(trace.gpu.duration_ns)
        what = "its share of the GPU time"
    else:
        spent, whole = total_ns(host.duration_ns[rows]), cpu_time_ns(trace) or 0
        what = "its share of the operators' CPU time"
    if whole <= 0 or spent / whole < SMALLEST_SHARE:
        return None
    calls = Counter(trace.names[name] for name in host.name[inside(trace, int(rows[0]))].tolist())
    passes = [f"{name} × {count}" for name, count in calls.most_common(6)]
    facts = [Fact(f"calls of {OPERATOR}", f"{len(rows):,}"), Fact(what, share(spent, whole))]
    if passes:
        facts.append(Fact("operators inside its first call, none of them fused", ", ".join(passes)))
    return Signature(
        "float8_weight_only",
        "opaque-dequantisation",
        "torchao dequantises float8 weights in an operator that the compiler cannot fuse",
        tuple(facts),
        "upgrade torchao to 0.14.1 or later and compile; problems/float8_weight_only/WORKLOG.md",
    )
