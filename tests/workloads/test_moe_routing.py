"""Is routing repeatable, skewed as asked, replayed as recorded, refused where it does not fit?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import UsageError
from common.floors.active_experts import expected_active, routing_of
from common.workloads.moe_config import CONFIGS
from common.workloads.moe_routing import Picks, SkewedRouting, load_routing, save_routing
from common.workloads.moe_weights import build_random_moe

CPU = torch.device("cpu")
TOKENS = torch.arange(30).view(2, 15)


def recorded(tmp_path: Path, model_name: str = "tiny") -> tuple[Path, torch.Tensor]:
    """A file with the routing of one forward pass, and the logits of that pass."""
    model = build_random_moe(CONFIGS[model_name], CPU)
    layers: list[torch.Tensor | None] = [None] * model.config.layers

    def keep(layer: int, picks: Picks) -> None:
        layers[layer] = picks.experts

    model.observe = keep
    logits = model(TOKENS)
    save_routing(tmp_path / "routing.npz", layers)
    return tmp_path / "routing.npz", logits


@pytest.mark.parametrize("name", ["tiny", "tiny-pyramid", "tiny-shared"])
def test_a_recorded_routing_replayed_gives_the_same_logits(tmp_path: Path, name: str) -> None:
    path, logits = recorded(tmp_path, name)
    again = build_random_moe(CONFIGS[name], CPU)
    again.override = load_routing(path)
    assert torch.equal(again(TOKENS), logits)


def test_an_override_changes_the_choice_and_keeps_the_routers_weights() -> None:
    model = build_random_moe(CONFIGS["tiny"], CPU)
    free = model(TOKENS)
    seen: list[Picks] = []
    model.observe = lambda layer, picks: seen.append(picks)
    model.override = SkewedRouting(2.0)
    assert not torch.allclose(model(TOKENS), free)
    assert all(torch.allclose(p.weights.sum(-1), torch.ones(30)) for p in seen)
    assert not torch.allclose(seen[0].weights, torch.full_like(seen[0].weights, 0.5))


def test_skewed_routing_is_repeatable_and_picks_different_experts_for_each_token() -> None:
    first, second = (SkewedRouting(1.0, seed=5).picks(2, 40, 16, 4) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, SkewedRouting(1.0, seed=6).picks(2, 40, 16, 4))
    assert not torch.equal(first, SkewedRouting(1.0, seed=5).picks(3, 40, 16, 4))
    assert routing_of(first.numpy(), 16).tokens == 40  # raises if a token picks one twice


def test_no_skew_touches_as_many_experts_as_the_formula_says_and_skew_fewer() -> None:
    def mean_active(skew: float) -> float:
        rows = [SkewedRouting(skew, s).picks(0, 16, 64, 2).numpy() for s in range(200)]
        return float(np.mean([routing_of(row, 64).active for row in rows]))

    assert mean_active(0) == pytest.approx(expected_active(64, 2, 16), rel=0.02)
    assert mean_active(1.0) < 0.85 * expected_active(64, 2, 16)


def test_a_routing_of_another_shape_is_refused(tmp_path: Path) -> None:
    path, _ = recorded(tmp_path)
    model = build_random_moe(CONFIGS["tiny"], CPU)
    model.override = load_routing(path)
    with pytest.raises(UsageError, match="recorded for 30 tokens and top-2, this run has 28"):
        model(TOKENS[:, :14])
    with pytest.raises(UsageError, match="top-2, this run has 30 and top-1"):
        other = build_random_moe(CONFIGS["tiny"].with_top_k(1), CPU)
        other.override = load_routing(path)
        other(TOKENS)
    with pytest.raises(UsageError, match="this model has 4"):
        small = build_random_moe(CONFIGS["tiny-pyramid"], CPU)
        small.override = load_routing(path)
        small(TOKENS)


def test_a_layer_that_was_not_recorded_is_refused(tmp_path: Path) -> None:
    save_routing(tmp_path / "one.npz", [torch.tensor([[0, 1]] * 30)])
    model = build_random_moe(CONFIGS["tiny"], CPU)
    model.override = load_routing(tmp_path / "one.npz")
    with pytest.raises(UsageError, match="no routing of layer 1"):
        model(TOKENS)


def bad_files(folder: Path) -> list[Path]:
    (folder / "text.npz").write_text("not an archive")
    (folder / "empty.npz").write_bytes(b"")
    np.savez(folder / "other.npz", x=np.ones(3))
    np.savez(folder / "floats.npz", layers=np.array(1), layer0=np.ones((3, 2)))
    np.savez(folder / "flat.npz", layers=np.array(1), layer0=np.arange(4))
    np.savez(folder / "more.npz", layers=np.array(1), layer5=np.array([[0, 1]]))
    np.savez(folder / "twice.npz", layers=np.array(1), layer0=np.array([[1, 1]]))
    np.savez(folder / "pickled.npz", layers=np.array([{}], dtype=object))
    np.save(folder / "single.npy", np.arange(4))
    return [*folder.glob("*.np?"), folder / "missing.npz"]


def test_files_that_hold_no_routing_are_refused_in_one_line(tmp_path: Path) -> None:
    files = bad_files(tmp_path)
    assert len(files) == 10
    for path in files:
        with pytest.raises(UsageError) as raised:
            load_routing(path)
        assert path.name in str(raised.value)
        assert "\n" not in str(raised.value)


def test_a_skew_below_zero_is_refused() -> None:
    with pytest.raises(UsageError, match="from 0"):
        SkewedRouting(-1.0)
