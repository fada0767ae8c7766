"""The real models: every side computes one thing, weights are shared, bad input is one line."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from common.contract.problem import load_problem
from common.errors import CheckFailed, PreconditionError, UsageError
from common.workloads.moe_experts import Experts
from common.workloads.moe_routing import save_routing
from common.workloads.moe_weights import moe_blocks
from problems.moe_batch_scaling import sides as sides_module
from problems.moe_batch_scaling.frames import SAME_CODE
from problems.moe_batch_scaling.models import Models, choose_config, fitting_layers
from problems.moe_batch_scaling.placement import (
    crossing,
    link_gb_per_s,
    make_layer,
    run_placements,
)
from problems.moe_batch_scaling.plan import Plan, read_plan, side_groups, sweep_groups
from problems.moe_batch_scaling.points import Measured, Phase, Point, PointStore
from problems.moe_batch_scaling.published import published_results
from problems.moe_batch_scaling.repro import Session, main, open_session
from problems.moe_batch_scaling.sides import SIDES, Opener, OurSide, turn_prompt
from problems.moe_batch_scaling.stages import STAGES, profile_side
from problems.moe_batch_scaling.tasks import same_as_auto

CPU = torch.device("cpu")
PLAN = Plan("tiny", (1, 2), sequence=8, sequences=(16,), top_ks=(1,), formats=("int8",))
HAS_TRANSFORMERS = importlib.util.find_spec("transformers") is not None


@pytest.fixture(autouse=True, scope="module")
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def models() -> Models:
    return Models(choose_config(PLAN, CPU), torch.float32, CPU, None)


@pytest.fixture(scope="module")
def opener(models: Models) -> Opener:
    return Opener(models)


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("side", SIDES)
def test_every_side_gives_the_references_logits(opener: Opener, phase: Phase, side: str) -> None:
    if side.startswith("hf-") and not HAS_TRANSFORMERS:
        pytest.skip("transformers is not installed")
    opened = opener(Point(phase, 2, 8, 2, "float32", side=side))  # compares, or raises
    assert opener.errors[opened.point.id] <= 1e-5
    first = opened.run(opened.select(0))
    again = opened.run(opened.select(0))
    assert torch.equal(first, again), "a step must not leave anything in the cache"


def test_a_side_that_computes_something_else_is_found_out(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(self: OurSide, tokens: torch.Tensor) -> torch.Tensor:
        return run(self, tokens) * (1.001 if self.point.side == "dense" else 1.0)

    run = OurSide.run
    monkeypatch.setattr(OurSide, "run", wrong)
    with pytest.raises(CheckFailed, match="computes something else"):
        Opener(models)(Point("prefill", 2, 8, 2, "float32", side="dense"))


def test_top_k_shares_the_weights_and_int8_shrinks_them(models: Models) -> None:
    one = models.ours(1, "float32")
    ours, base = one.layers[0].mlp.experts, models.base.layers[0].mlp.experts  # type: ignore[union-attr]
    assert isinstance(ours, Experts) and isinstance(base, Experts)
    assert ours.gate_up_proj.data_ptr() == base.gate_up_proj.data_ptr()
    models.ours(2, "int8")
    assert 1.0 < models.bytes_per_weight["int8"] < 1.07


def test_batched_mm_says_what_it_would_copy_instead_of_being_killed(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sides_module, "free_bytes", lambda device: 1000)
    with pytest.raises(MemoryError, match="copies .* GB of weights for 16 tokens"):
        OurSide(models, Point("prefill", 2, 8, 2, "float32", side="batched_mm"))


def test_the_routing_of_a_point_is_its_own(opener: Opener) -> None:
    point = Point("decode", 2, 8, 2, "float32", routing="skew-1")
    side = opener(point)
    assert isinstance(side, OurSide)
    found = side.describe(Measured(point, "g", "measured", samples_ns=(1,)))
    assert len(found.touched) == 2 and all(2 <= t <= 4 for t in found.touched)
    weights = 3 * 64 * 96 * 4
    assert found.touched_bytes == pytest.approx(sum(found.touched) * weights)


def test_routing_is_observed_by_the_fast_backend_and_is_the_same(opener: Opener) -> None:
    point = Point("decode", 2, 8, 2, "float32")
    measured = Measured(point, "g", "measured", samples_ns=(1,))
    expected = opener(point).describe(measured)
    opener.models.routing_seen.clear()
    slow = opener(Point("decode", 2, 8, 2, "float32", side="batched_mm"))
    assert slow.describe(measured).touched == expected.touched
    assert slow.model.backend == "auto"
    slow.sample()
    assert slow.model.backend == "batched_mm", "what is timed is the side itself"


def test_a_profile_adds_up_and_leaves_no_ranges_behind(opener: Opener, tmp_path: Path) -> None:
    side = opener(Point("prefill", 2, 8, 2, "float32"))
    assert isinstance(side, OurSide)
    found = profile_side(side, tmp_path)
    assert sum(found.stages_ns.values()) + found.other_ns == found.total_ns > 0
    assert set(found.stages_ns) >= set(STAGES[:6]) and found.other_ns > 0
    assert found.kernels is None and found.idle_ns is None, "no GPU: not 0"
    assert (tmp_path / f"{side.point.id}.trace.json.gz").exists()
    assert side.model.stage("x").__class__.__name__ == "nullcontext"


def test_the_presets_of_the_problem_can_be_planned() -> None:
    problem = load_problem("moe_batch_scaling")
    for name, preset in problem.presets.items():
        plan = read_plan(preset.settings)
        config = choose_config(plan if plan.layers != "fit" else Plan("tiny", (1,)), CPU)
        points = [p for group in sweep_groups(plan, config) for p in group.points]
        assert len({p.id for p in points}) == len(points), name
    exercise = read_plan(problem.presets["exercise"].settings)
    assert (exercise.sequence, exercise.batches) == (128, (1, 2, 4, 8, 16, 32))
    assert choose_config(exercise, CPU).vocab == 10_000
    crossed = read_plan(problem.presets["factorial"].settings)
    points = [p for g in sweep_groups(crossed, choose_config(crossed, CPU)) for p in g.points]
    assert len([p for p in points if not p.in_turn]) == 2 * 6 * 3 * 3 * 4
    assert len([p for p in points if p.in_turn]) == 2 * 6


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batches": [0]}, "batches holds 0; use whole numbers from 1"),
        ({"batches": []}, "a sweep needs batches"),
        ({"sequence": 0}, "sequence holds 0"),
        ({"dtype": "float8"}, "dtype is 'float8'; choose"),
        ({"formats": ["int4"]}, "no format is called 'int4'; choose"),
        ({"factor_batches": {"train": [1]}}, "factor_batches names 'train'"),
        ({"batchs": [1]}, "see plan.py"),
        ({"rounds": {"least": 2, "more": 3}}, "see plan.py"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_plan({"model": "tiny", "batches": [1], **settings})


def test_more_experts_per_token_than_there_are_is_refused_before_anything_is_measured() -> None:
    plan = Plan("tiny", (1,), sequence=8, top_ks=(9,))
    with pytest.raises(UsageError, match="top_k is 9, but layer 0 has 8 experts"):
        list(sweep_groups(plan, choose_config(plan, CPU)))


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["repro.py", "--preset", "tiny", "--repetitions", "1", *words])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--top-k", "9"), "top_k is 9, but layer 0 has 8 experts; choose"),
        (("--batches", "0"), "batches holds 0; use whole numbers"),
        (("--batches", "two"), "write numbers"),
        (("--sequence", "0"), "sequence holds 0; use whole numbers"),
        (("--layers", "9"), "choose from 1 to"),
        (("--checkpoint", "/nowhere"), "holds no config.json"),
        (("--variant", "placement"), "needs a GPU of compute capability"),
    ],
)
def test_bad_input_is_one_line_and_a_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...],
    says: str,
) -> None:  # fmt: skip
    assert call(monkeypatch, *words) in (2, 3)
    error = capsys.readouterr().err
    assert says in error and error.startswith("error: ") and error.count("\n") == 1


def test_a_routing_file_of_another_shape_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "routing.npz"
    save_routing(path, [torch.tensor([[0, 1], [2, 3]])] * 2)
    assert call(monkeypatch, "--batches", "2", "--routing", str(path)) == 2
    error = capsys.readouterr().err
    assert "was recorded for 2 tokens and top-2, this run has 16 and top-2" in error
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    assert call(monkeypatch, "--routing", str(tmp_path / "other.npz")) == 2


def test_a_missing_shard_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    whole = Path(__file__).parents[2] / "data" / "moe_tiny_mixtral"
    for path in whole.iterdir():
        if path.suffix in (".json", ".safetensors"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    assert call(monkeypatch, "--batches", "1", "--checkpoint", str(tmp_path)) == 0
    assert '"points"' in capsys.readouterr().out
    (tmp_path / "model-00003-of-00005.safetensors").unlink()
    assert call(monkeypatch, "--batches", "1", "--checkpoint", str(tmp_path)) == 2
    assert "model-00003-of-00005.safetensors" in capsys.readouterr().err


def test_repro_by_itself_prints_a_table_and_one_document(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "--batches", "1,2") == 0
    lines = capsys.readouterr().out.splitlines()
    document = json.loads(lines[-1])
    assert [row["batch"] for row in document["points"]] == [1, 2, 1, 2]
    for row in document["points"]:
        assert row["samples_per_s"] == pytest.approx(row["batch"] / row["latency_ms"] * 1e3)


def test_the_three_placements_give_one_result_and_are_timed() -> None:
    """Without a GPU the device is the host itself: the code runs, its times mean nothing."""
    layer = make_layer(4, 32, 48, torch.float32, CPU)
    taken = run_placements(layer, 5, 2)
    assert set(taken) == {"gpu-resident", "cpu", "swapped-in"}
    assert all(len(seconds) == 7 and min(seconds) > 0 for seconds in taken.values())
    assert link_gb_per_s(CPU) > 0


def test_where_two_curves_cross() -> None:
    tokens = (1, 10, 100)
    assert crossing(tokens, (1.0, 1.0, 1.0), (2.0, 1.0, 0.5)) == pytest.approx(10)
    between = crossing(tokens, (1.0, 1.0, 4.0), (4.0, 4.0, 1.0))
    assert between == pytest.approx(10 * 10**0.5)
    assert crossing(tokens, (1.0,) * 3, (2.0,) * 3) is None


def test_layers_are_chosen_by_what_fits() -> None:
    plan = Plan("mixtral-8x7b", (1,), layers="fit", dtype="bfloat16")
    assert fitting_layers(plan, 141 << 30) == 32
    assert fitting_layers(plan, 24 << 30) == 6
    with pytest.raises(PreconditionError, match="needs .* GB and"):
        fitting_layers(plan, 1 << 30)


def test_published_figures_come_out() -> None:
    figures = {name: row["value"] for name, row in published_results().figures.items()}
    assert figures["p1_flop_per_byte"] == 81.25
    assert figures["p2_flop_per_byte"] == pytest.approx(599.0, rel=1e-3)
    assert figures["n_at_p1"] == pytest.approx(326.4, rel=1e-3)
    assert figures["n_at_p2"] == pytest.approx(2473.5, rel=1e-3)
    assert [figures[f"mtbench_at_{gib}_gib"] for gib in (187, 188, 189, 190)] == [8] * 4
    assert figures["sizes_reproduced"] == 10 and figures["policy_search_seconds"] <= 2
    assert figures["law_max_error_h100_mixtral_bf16"] <= 0.058
    assert figures["law_mean_error_h100_mixtral_bf16"] <= 0.0251
    assert figures["law_max_error_h100_qwen3_30b_fp8"] <= 0.135
    assert figures["law_max_error_a100_qwen3_30b_bf16"] <= 0.056


def test_a_task_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no task is called 'sweeps'"):
        Session("sweeps", PLAN, "cpu", None).profile(tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep's own task over the tiny preset, as a worker runs it."""
    folder = tmp_path_factory.mktemp("sweep")
    preset = load_problem("moe_batch_scaling").presets["tiny"].settings
    session = open_session({"task": "sweep"}, preset, "cpu", {})
    session.prepare()
    session.profile(folder)
    return folder


def test_a_sweep_leaves_points_traces_tables_and_charts(run: Path) -> None:
    store = PointStore(run)
    assert all(each.status == "measured" for each in store.kept.values())
    in_turn = [each for each in store.kept.values() if each.point.in_turn]
    assert len(in_turn) == 3 + (3 + 2), "every batch of both phases, and those of the law"
    assert all(each.baseline and each.stopped for each in in_turn)
    assert len(store.kept) == len(in_turn) + 2 * (1 + 5)
    assert set(store.profiled) == {each.point.id for each in in_turn}
    tables = json.loads((run / "tables.json").read_text(encoding="utf-8"))
    assert {"scaling-prefill", "scaling-decode", "factors", "stages", "turns", "law"} <= set(tables)
    assert (run / "charts" / "latency-decode.svg").exists()
    traces = {path.name.removesuffix(".trace.json.gz") for path in (run / "points").iterdir()}
    assert traces == set(store.profiled)


def test_a_sweep_that_is_continued_measures_nothing_again(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (run / "points.jsonl").read_text(encoding="utf-8")

    def never(self: OurSide) -> int:
        raise AssertionError("measured again")

    monkeypatch.setattr(OurSide, "sample", never)
    preset = load_problem("moe_batch_scaling").presets["tiny"].settings
    open_session({"task": "sweep"}, preset, "cpu", {}).profile(run)
    assert (run / "points.jsonl").read_text(encoding="utf-8") == before


@pytest.mark.parametrize("at_once", [16, 3])
def test_batches_in_turn_share_weights_and_one_cache_that_is_filled_once(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(sides_module, "PROMPTS_AT_ONCE", at_once)
    models = Models(choose_config(PLAN, CPU), torch.float32, CPU, None)
    models.most_in_turn["decode"] = 4
    sides = {
        batch: OurSide(models, Point("decode", batch, 8, 2, "float32", in_turn=True))
        for batch in (2, 4)
    }
    small, large = sides[2].model, sides[4].model
    assert small is not large and small is not models.base
    assert small.lm_head.weight.data_ptr() == models.base.lm_head.weight.data_ptr()
    caches = [moe_blocks(model)[1].self_attn.cache for model in (small, large)]
    assert caches[0] is not None and caches[1] is not None
    assert caches[0][0].data_ptr() == caches[1][0].data_ptr()
    assert [cache[0].shape[0] for cache in caches if cache] == [2, 4]
    assert caches[1][0][:, :, :8].abs().sum(dim=(1, 2, 3)).min() > 0, "every sequence has a prompt"
    # The first two of the four sequences, one token further: as a model of its own computes it.
    with torch.no_grad():
        prompt = turn_prompt(sides[2].point, models, 4)
        token = sides[2].select(0)
        got = sides[2].run(token)
        whole = torch.cat([prompt[:2], token], dim=1)
        expected = models.base(whole, last_only=True)
    assert ((got - expected).norm() / expected.norm()).item() < 1e-5


def test_every_storage_and_top_k_decodes_on_the_cache_of_the_model_as_it_is() -> None:
    models = Models(choose_config(PLAN, CPU), torch.float32, CPU, None)
    base = OurSide(models, Point("decode", 2, 8, 2, "float32"))
    filled = moe_blocks(base.model)[0].self_attn.cache
    other = OurSide(models, Point("decode", 2, 8, 1, "float32"))
    small = OurSide(models, Point("decode", 2, 8, 2, "int8"))
    for side in (other, small):
        assert moe_blocks(side.model)[0].self_attn.cache is filled
    prefill = OurSide(models, Point("prefill", 2, 8, 2, "float32"))
    prefill.sample()
    assert models.filled is None, "a prefill leaves its own positions: the next side fills anew"


def test_what_auto_runs_is_not_measured_beside_itself() -> None:
    models = Models(choose_config(PLAN, CPU), torch.float32, CPU, None)
    (group, *_) = side_groups(PLAN, models.config, SIDES)
    assert same_as_auto(group, Opener(models)) == {"sorted": SAME_CODE}


def test_the_groups_of_the_comparison_begin_with_auto() -> None:
    groups = list(side_groups(PLAN, choose_config(PLAN, CPU), SIDES))
    assert len(groups) == 4 and all(group.points[0].side == "auto" for group in groups)
    assert all(len(group.points) == len(SIDES) for group in groups)
