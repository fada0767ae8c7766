"""Is a variant's output still right? Its logits against the baseline's, before any time is taken.

A variant that computes something else may be as fast as it likes: it gets no figures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Outputs = dict[str, NDArray[np.float32]]


def load_outputs(path: Path) -> Outputs:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name].astype(np.float32) for name in archive.files}


def relative_error(values: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """||values - reference|| / ||reference|| in the Euclidean norm over all logits."""
    wide = reference.astype(np.float64)
    return float(np.linalg.norm(values - wide) / np.linalg.norm(wide))


def top1_agreement(values: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Share of positions whose largest logit is the same one."""
    return float((values.argmax(-1) == reference.argmax(-1)).mean())


def divergence_nats(values: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Mean Kullback-Leibler divergence KL(reference || values) of the next-token distributions."""

    def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
        shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
        normalised: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        return normalised

    left, right = log_softmax(reference), log_softmax(values)
    return float((np.exp(left) * (left - right)).sum(-1).mean())


def check_outputs(outputs: Outputs, reference: Outputs, tolerance: float | None) -> dict[str, Any]:
    """The correctness record of one variant. `tolerance` None: it is the reference itself."""
    if not reference:
        return {"passed": False, "reason": "the reference has no outputs to compare with"}
    for name, wanted in reference.items():
        found = outputs.get(name)
        if found is None or found.shape != wanted.shape:
            shape = None if found is None else found.shape
            return {"passed": False, "reason": f"{name} has shape {shape}, not {wanted.shape}"}
        if found.ndim == 0 or found.size == 0:
            return {"passed": False, "reason": f"{name} has shape {found.shape}: no logits"}
        if not np.isfinite(found).all():
            return {"passed": False, "reason": f"{name} holds values that are not finite"}
        if not np.any(wanted):
            return {"passed": False, "reason": f"the reference's {name} is all zeros"}
    record: dict[str, Any] = {
        "relative_error": {n: relative_error(outputs[n], reference[n]) for n in reference},
        "top1_agreement": {n: top1_agreement(outputs[n], reference[n]) for n in reference},
        "divergence_nats": {n: divergence_nats(outputs[n], reference[n]) for n in reference},
    }
    if tolerance is None:
        return {"passed": True, "reference": True, **record}
    worst = max(record["relative_error"].values())
    passed = worst <= tolerance
    record = {"passed": passed, "tolerance": tolerance, **record}
    if not passed:
        record["reason"] = f"relative error {worst:.3g} is above the tolerance {tolerance:g}"
    return record
