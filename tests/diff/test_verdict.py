"""Is what is said about speed right on pairs whose answer is known, real, made up and planted?"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.step_series import DIFFERENT, KINDS, Noise, side_of, verdicts
from helpers.trace_files import NsysFile, call, document, event, kernel, write

from common.diff.comparable import overlap_warning
from common.diff.difference import Confidence, Judgement
from common.diff.sides import Side, open_side
from common.diff.steps import launched_ns, spans_ns
from common.diff.verdict import judge_traces

GPUS = '"deviceProperties": [{"id": 0, "name": "NAME"}], '


def opened(path: Path, *events: str, gpu: str | None = None) -> Side:
    head = GPUS.replace("NAME", gpu) if gpu is not None else ""
    return open_side(str(write(path, document(*events, before=head))))


def judged(a: Side, b: Side) -> Judgement:
    """The verdict; the other way round must be its mirror, and both must fit into JSON."""
    found, back = judge_traces(a, b), judge_traces(b, a)
    mirror = {"FASTER": "SLOWER", "SLOWER": "FASTER"}
    assert back.verdict == mirror.get(found.verdict, found.verdict)
    assert back.confidence is found.confidence
    if found.ratio is not None:
        assert back.ratio == pytest.approx(1 / found.ratio)
    json.dumps(found.to_json(), allow_nan=False)
    return found


def said(found: Judgement, *words: str) -> bool:
    return any(all(word in reason for word in words) for reason in found.reasons)


# One capture a side.


def work(factor: float, count: int = 3, name: str = "k", shift: int = 0) -> list[str]:
    """`count` kernels of 10 us, the first starts of which are 100 us × factor apart."""
    found = []
    for i in range(count):
        ts = shift + i * 100 * factor
        found += [call("cudaLaunchKernel", f"{ts:.3f}", "2", i + 1),
                  kernel(name, f"{ts + 5:.3f}", "10", i + 1)]  # fmt: skip
    return found


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(1.4, "AMBIGUOUS"), (1.7, "SLOWER"), (1 / 1.7, "FASTER"), (1.001, "AMBIGUOUS")],
)
def test_one_capture_a_side_needs_more_than_half_as_much_again(
    tmp_path: Path, factor: float, verdict: str
) -> None:
    a, b = (opened(tmp_path / n, *work(f, 9)) for n, f in (("a", 1), ("b", factor)))
    found = judged(a, b)
    assert (found.verdict, found.confidence) == (verdict, Confidence.SINGLE)
    assert found.judged_on == "span" and found.interval is None
    assert found.evidence["span_ns"] == {"a": 810_000, "b": found.evidence["span_ns"]["b"],
                                         "ratio": found.ratio}  # fmt: skip
    assert found.evidence["gpu_time_ns"]["ratio"] == 1
    assert said(found, "under a profiler")


def test_the_same_work_at_another_time_is_the_same(tmp_path: Path) -> None:
    a = opened(tmp_path / "a", *work(1))
    shifted = opened(tmp_path / "b", *work(1, shift=5_000_000))
    copied = opened(tmp_path / "c", *work(1))
    for b in (a, shifted, copied):
        found = judged(a, b)
        assert (found.verdict, found.ratio) == ("SAME", 1.0)
        assert not said(found, "under a profiler")


def test_a_nanosecond_a_name_or_a_stream_make_it_another(tmp_path: Path) -> None:
    a = opened(tmp_path / "a", *work(1))
    texts = work(1)
    for number, (old, new) in enumerate(
        [('"dur": 10,', '"dur": 10.001,'), ('"name": "k"', '"name": "l"'), ('": 7', '": 8')]
    ):
        changed = [*texts[:-1], texts[-1].replace(old, new)]
        assert changed != texts
        assert judged(a, opened(tmp_path / str(number), *changed)).verdict == "AMBIGUOUS"


def test_nothing_recorded_is_the_same_only_as_itself(tmp_path: Path) -> None:
    a, b = opened(tmp_path / "a"), opened(tmp_path / "b.json", gpu="X")
    assert judged(a, a).verdict == "SAME"
    found = judged(a, b)
    assert found.verdict == "AMBIGUOUS" and said(found, "no span")


def test_a_longer_capture_of_the_same_work_is_no_slowdown(tmp_path: Path) -> None:
    a, b = (opened(tmp_path / str(n), *work(1, n)) for n in (4, 12))
    found = judged(a, b)
    assert found.verdict == "AMBIGUOUS" and said(found, "3 times as often")


def test_what_is_cut_off_has_no_span(tmp_path: Path) -> None:
    a = opened(tmp_path / "a", *work(1, 30))
    whole = document(*work(1.01, 30))
    b = open_side(str(write(tmp_path / "b", whole[: len(whole) // 3])))
    found = judged(a, b)
    assert found.ratio is not None and found.ratio < 0.5
    assert found.verdict == "AMBIGUOUS" and said(found, "B is cut off")


def test_gpu_work_on_one_side_alone_gives_no_verdict(tmp_path: Path) -> None:
    a = opened(tmp_path / "a", *work(1))
    b = opened(tmp_path / "b", event("cpu_op", "aten::mm", "0", "5000"))
    found = judged(a, b)
    assert found.verdict == "AMBIGUOUS" and said(found, "only A recorded GPU work")
    assert found.evidence["gpu_time_ns"] == {"a": 30_000, "b": None, "ratio": None}


def test_without_a_gpu_the_span_is_that_of_the_operators(tmp_path: Path) -> None:
    def ops(factor: float) -> list[str]:
        starts = (10 + i * 100 * factor for i in range(2))
        inside = [event("cpu_op", "aten::mm", f"{start}", "50") for start in starts]
        return [event("user_annotation", "all", "0", "90000"), *inside]

    found = judged(opened(tmp_path / "a", *ops(1)), opened(tmp_path / "b", *ops(3)))
    assert found.evidence["span_ns"] == {"a": 150_000, "b": 350_000, "ratio": pytest.approx(7 / 3)}
    assert found.evidence["span_of"] == "operators on the host" and found.verdict == "SLOWER"


def test_gpu_time_that_points_the_other_way_is_said(tmp_path: Path) -> None:
    a = opened(tmp_path / "a", *work(1, 9))
    slower_kernels = [e.replace('"dur": 10,', '"dur": 11,') for e in work(0.5, 9)]
    found = judged(a, opened(tmp_path / "b", *slower_kernels))
    assert found.verdict == "FASTER"
    assert said(found, "GPU time is up 10.0%", "the span falls", "opposite")
    still = [e.replace('"dur": 10,', '"dur": 5,') for e in work(1, 9)]
    assert said(judged(a, opened(tmp_path / "c", *still)), "GPU time is down 50.0%", "stays")


# Steps and ranges.


def looped(
    steps: int, host_us: float, gpu_us: float, name: str = "ProfilerStep#N", links: bool = True
) -> list[str]:
    """Steps of `host_us` that each queue `gpu_us` of work: the slower side sets the pace."""
    found, free = [], 0.0
    for i in range(steps):
        at = i * host_us
        start = max(at + 2, free)
        free = start + gpu_us
        found.append(event("user_annotation", name.replace("N", str(i)), f"{at}", f"{host_us}"))
        found.append(call("cudaLaunchKernel", f"{at + 1}", "1", i + 1))
        half = gpu_us / 2
        found.append(kernel("k", f"{start}", f"{half}", i + 1))
        found.append(kernel("l", f"{start + half}", f"{half}", i + 1 if links else None))
    return found


@pytest.mark.parametrize("links", [True, False])
def test_a_step_lasts_until_its_gpu_work_is_done(tmp_path: Path, links: bool) -> None:
    a = opened(tmp_path / "a", *looped(20, 10, 100, links=links))
    b = opened(tmp_path / "b", *looped(20, 10, 130, links=links))
    found = judged(a, b)  # on the host both are the same
    assert (found.verdict, found.confidence) == ("SLOWER", Confidence.INTERVAL)
    assert found.judged_on == "span per step" and found.ratio == pytest.approx(1.3)
    assert found.interval is not None and found.interval[0] == pytest.approx(1.3)
    host = opened(tmp_path / "c", *looped(20, 130, 5))
    assert judged(b, host).verdict == "SAME"  # bound by the host, at the same pace


def test_spans_add_up_to_the_time_from_the_first_start_to_the_last_end(tmp_path: Path) -> None:
    for n, (host, gpu) in enumerate([(10, 100), (100, 10), (50, 50), (33.5, 34.25)]):
        trace = opened(tmp_path / str(n), *looped(12, host, gpu)).trace
        bounds = np.array([(s.start_ns, s.end_ns) for s in trace.steps])
        spans = spans_ns(trace, bounds[:, 0], bounds[:, 1])
        last = max(int(trace.gpu.end_ns.max()), int(bounds[:, 1].max()))
        assert len(spans) == 12 and int(spans.sum()) == last - int(bounds[0, 0])


def test_work_of_unknown_launch_takes_its_time_from_its_own_stream(tmp_path: Path) -> None:
    side = opened(
        tmp_path / "a",
        call("cudaLaunchKernel", "10", "1", 1),
        call("cudaLaunchKernel", "20", "1", 2),
        kernel("k", "100", "5", 1),
        kernel("k", "110", "5", None),  # after the one launched at 10
        kernel("k", "120", "5", 2),
        kernel("k", "105", "5", None, stream=8),  # nothing is known of this stream
        kernel("k", "130", "5", None),  # after the one launched at 20
    )
    by_start = dict(zip(side.trace.gpu.start_ns, launched_ns(side.trace), strict=True))
    assert by_start == {100_000: 10_000, 105_000: 105_000, 110_000: 10_000, 120_000: 20_000,
                        130_000: 20_000}  # fmt: skip


def test_captures_of_unequal_length_are_held_together_by_the_step(tmp_path: Path) -> None:
    """Twice the steps have twice the GPU time and span, and that is no change of either."""
    a = opened(tmp_path / "a", *looped(12, 100, 20))
    found = judged(a, opened(tmp_path / "b", *looped(24, 70, 20)))
    assert found.verdict == "FASTER" and found.evidence["gpu_time_ns"]["ratio"] == 2
    assert not said(found, "opposite") and not said(found, "whole capture")
    up = judged(a, opened(tmp_path / "c", *looped(24, 70, 22)))
    assert said(up, "GPU time is up 10.0% while the span per step falls 30.0%")
    slow = [event("user_annotation", "ProfilerStep#99", "1200", "3000"),
            call("cudaLaunchKernel", "4100", "1", 999), kernel("k", "4110", "20", 999)]  # fmt: skip
    late = judged(a, opened(tmp_path / "d", *looped(12, 70, 20), *slow))
    assert late.verdict == "FASTER" and said(late, "whole capture", "outside the steps")


def test_ten_steps_give_an_interval_and_nine_do_not(tmp_path: Path) -> None:
    for count, confidence in ((10, Confidence.INTERVAL), (9, Confidence.SINGLE)):
        a = opened(tmp_path / f"a{count}", *looped(count, 100, 10))
        b = opened(tmp_path / f"b{count}", *looped(count, 120, 10))
        found = judged(a, b)
        assert found.confidence is confidence
        assert found.verdict == ("SLOWER" if count == 10 else "AMBIGUOUS")


def test_few_steps_of_unequal_number_are_compared_by_the_step(tmp_path: Path) -> None:
    a = opened(tmp_path / "a", *looped(3, 100, 10))
    found = judged(a, opened(tmp_path / "b", *looped(9, 110, 10)))
    assert found.judged_on == "span per step" and found.ratio == pytest.approx(1.1)
    assert found.verdict == "AMBIGUOUS"
    twice = judged(a, opened(tmp_path / "c", *looped(6, 200, 10)))
    assert twice.verdict == "SLOWER" and twice.ratio == pytest.approx(2)


def test_a_warm_up_in_one_of_few_steps_is_no_speed(tmp_path: Path) -> None:
    a, place = side_of([5000, 1000, 1000], tmp_path / "a"), tmp_path / "b"
    b = side_of([1000, 1000, 1000], place)
    (tmp_path / "a").write_text("a")
    place.write_text("b")
    ops = [
        opened(tmp_path / f"ops{n}", event("cpu_op", "aten::mm", "0", f"{sum(spans) / 1000}"),
               *(event("user_annotation", f"ProfilerStep#{i}", f"{sum(spans[:i]) / 1000}",
                       f"{span / 1000}") for i, span in enumerate(spans)))
        for n, spans in enumerate(([5000, 1000, 1000], [1000, 1000, 1000]))
    ]  # fmt: skip
    assert [len(s.trace.steps) for s in (a, b, *ops)] == [3] * 4
    found = judged(*ops)
    assert found.ratio == pytest.approx(3 / 7)
    assert found.verdict == "AMBIGUOUS" and said(found, "warm-up")


def test_a_first_step_that_warms_up_is_left_out_and_said(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)
    rng = np.random.default_rng(0)
    steady = [int(x) for x in rng.normal(1e6, 1e4, 15)]
    a = side_of([3_000_000, *steady], tmp_path / "a")
    found = judged(a, side_of(steady, tmp_path / "b"))
    assert found.verdict == "SAME" and said(found, "A: the first step, 3.0×", "left out")
    assert found.evidence["steps"]["n_a"] == 15 and found.evidence["steps"]["recorded_a"] == 16


def ranges(path: Path, *rows: tuple[str, int, int], kernels: int = 0) -> Side:
    """A database of Nsight Systems with NVTX ranges, and kernels spread over them."""
    made = NsysFile(path)
    for text, start, end in rows:
        made.nvtx(text, start, end)
    last = max(end for _, _, end in rows)
    for i in range(kernels):
        at = i * last // kernels
        made.call("cudaLaunchKernel", at, at + 1, i + 1)
        made.kernel("k", at + 10, at + 20, i + 1)
    return open_side(str(made.done()))


def iterations(period: int, count: int, name: Callable[[int], str]) -> list[tuple[str, int, int]]:
    rows = []
    for i in range(count):
        at = i * period
        rows.append((name(i), at, at + period - 10))
        rows += [("inner", at + j, at + j + 40) for j in (10, 60, 110)]
    return rows


@pytest.mark.parametrize("name", ["decode", "step N", "Iteration_N"])
def test_the_outermost_range_that_repeats_is_a_step(tmp_path: Path, name: str) -> None:
    def called(i: int) -> str:
        return name.replace("N", str(i))

    a = ranges(tmp_path / "a", *iterations(1000, 12, called), kernels=60)
    b = ranges(tmp_path / "b", *iterations(1200, 15, called), kernels=75)
    found = judged(a, b)
    assert found.evidence["steps"]["name"] == "range " + name.rstrip("N _")
    assert (found.verdict, found.confidence) == ("SLOWER", Confidence.INTERVAL)
    assert found.ratio == pytest.approx(1.2, rel=0.02)


def test_of_nested_ranges_that_repeat_the_outer_one_is_the_step(tmp_path: Path) -> None:
    def nested(period: int) -> list[tuple[str, int, int]]:
        rows = []
        for i in range(12):
            at = i * period
            rows += [("outer", at, at + period - 5), ("inner", at + 5, at + period - 100),
                     ("outer", at + 10, at + 50)]  # fmt: skip
        return rows

    found = judged(ranges(tmp_path / "a", *nested(1000), kernels=48),
                   ranges(tmp_path / "b", *nested(1200), kernels=48))  # fmt: skip
    assert found.evidence["steps"]["name"] == "range outer" and found.verdict == "SLOWER"
    assert found.evidence["steps"]["recorded_a"] == 12  # one inside its own name is no other step


def test_a_range_that_is_open_now_and_then_is_no_step(tmp_path: Path) -> None:
    def rare(period: int) -> list[tuple[str, int, int]]:
        return [("nccl", i * period, i * period + 10) for i in range(20)]

    found = judged(ranges(tmp_path / "a", *rare(1000), kernels=40),
                   ranges(tmp_path / "b", *rare(1200), kernels=40))  # fmt: skip
    assert (found.verdict, found.confidence) == ("AMBIGUOUS", Confidence.SINGLE)
    assert said(found, "range nccl repeats", "no step of it")


def test_a_range_beside_which_much_else_happens_is_no_step(tmp_path: Path) -> None:
    def forward(backward: int) -> list[tuple[str, int, int]]:
        layers = [("layer", i * 100, i * 100 + 90) for i in range(12)]
        return [*layers, ("backward", 1200, 1200 + backward)]

    found = judged(ranges(tmp_path / "a", *forward(1200), kernels=50),
                   ranges(tmp_path / "b", *forward(1400), kernels=50))  # fmt: skip
    assert found.confidence is Confidence.SINGLE and said(found, "range layer repeats")


def test_what_repeats_within_a_few_profiler_steps_is_no_step(tmp_path: Path) -> None:
    def trace(layer: int) -> list[str]:
        steps = [event("user_annotation", f"ProfilerStep#{i}", f"{i * 12 * layer}", f"{12 * layer}")
                 for i in range(2)]  # fmt: skip
        return [*steps, *looped(24, layer, 2, name="layer")]

    found = judged(opened(tmp_path / "a", *trace(100)), opened(tmp_path / "b", *trace(120)))
    assert (found.verdict, found.confidence) == ("AMBIGUOUS", Confidence.SINGLE)


def test_two_profilers_need_a_large_difference(tmp_path: Path) -> None:
    a = opened(tmp_path / "a", *looped(12, 1.0, 0.1, name="decode"))
    for period, verdict in ((1200, "AMBIGUOUS"), (2500, "SLOWER")):
        rows = [("decode", i * period, (i + 1) * period) for i in range(12)]
        found = judged(a, ranges(tmp_path / f"b{period}", *rows, kernels=24))
        assert found.verdict == verdict and said(found, "recorded by torch, B by nsys")


# Comparable or not.


@pytest.mark.parametrize(
    ("of_a", "of_b", "differ"),
    [
        ("A100", "H100", True),
        ("", "H100", False),
        ("", "", False),
        ("NVIDIA A100-SXM4-40GB", "A100-SXM4-40GB", False),
        ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-80GB", True),
    ],
)
def test_known_devices_that_differ_are_not_comparable(
    tmp_path: Path, of_a: str, of_b: str, differ: bool
) -> None:
    a = opened(tmp_path / "a", *work(1, 9), gpu=of_a)
    found = judged(a, opened(tmp_path / "b", *work(2, 9), gpu=of_b))
    assert found.verdict == ("NOT_COMPARABLE" if differ else "SLOWER")
    assert found.evidence["span_ns"]["ratio"] == pytest.approx(1.99, rel=0.01)
    if differ:
        assert found.reasons[0] == f"the devices differ: {of_a} in A, {of_b} in B"
        assert found.evidence["if_comparable"]["verdict"] == "SLOWER"


def test_few_shared_names_are_a_warning(tmp_path: Path) -> None:
    a = opened(tmp_path / "a", *work(1))
    b = opened(tmp_path / "b", *work(1, name="sm90_k"))
    warned = overlap_warning(a, b)
    assert warned is not None and "only 0.0%" in warned and judged(a, b).verdict == "AMBIGUOUS"
    assert overlap_warning(a, a) is None
    empty = opened(tmp_path / "c")
    assert overlap_warning(a, empty) is None


# How often it is wrong.


def test_equal_code_is_hardly_ever_called_different(tmp_path: Path) -> None:
    wrong: dict[str, float] = {}
    for name, noise in KINDS.items():
        found = verdicts(noise, 1.0, 80, 5, tmp_path)
        wrong[name] = sum(found[verdict] for verdict in DIFFERENT) / 80
        assert wrong[name] <= 0.05, (name, found)
    assert sum(wrong.values()) / len(wrong) <= 0.02


@pytest.mark.parametrize(("factor", "verdict"), [(1.1, "SLOWER"), (1 / 1.1, "FASTER")])
def test_a_planted_tenth_is_seen_through_ordinary_noise(
    tmp_path: Path, factor: float, verdict: str
) -> None:
    assert verdicts(Noise(sd=0.01), factor, 80, 6, tmp_path)[verdict] >= 0.95 * 80
    found = verdicts(KINDS["spikes 10 %, warm-up 3×"], factor, 80, 6, tmp_path)
    assert found[verdict] >= 0.6 * 80 and found["SAME"] == 0


# Real files.

REAL: dict[tuple[str, str], str] = {
    ("torch/hta_control", "torch/hta_test"): "NOT_COMPARABLE",
    ("torch/qwen_h100", "torch/qwen_mi300"): "NOT_COMPARABLE",
    ("torch/owlv2_h100", "torch/owlv2_mi300"): "NOT_COMPARABLE",
    ("torch/bert_small_h100", "torch/bert_small_mi300"): "NOT_COMPARABLE",
    ("torch/leimao_without_make_graphed", "torch/leimao_with_make_graphed"): "FASTER",
    ("torch/leimao_without_manual_capture", "torch/leimao_with_manual_capture"): "FASTER",
    ("torch/leimao_without_make_graphed", "torch/leimao_without_manual_capture"): "AMBIGUOUS",
    ("torch/tutorial_h100_a", "torch/tutorial_h100_b"): "AMBIGUOUS",
    ("torch/particle_fwd_bs16", "torch/particle_fwd_bs128"): "AMBIGUOUS",
    ("torch/kineto_nw0", "torch/kineto_nw4"): "AMBIGUOUS",
    ("torch/switch_4batch", "torch/switch_4batch_rerun"): "AMBIGUOUS",
    ("torch/switch_4batch", "torch/switch_8batch"): "SLOWER",
    ("torch/moe_01_b300", "torch/moe_06_b300"): "AMBIGUOUS",  # a warm-up makes the difference
    ("nsys/lm_2_7B_clean", "nsys/lm_2_7B_compile_ro"): "AMBIGUOUS",
    ("nsys/lm_2_7B", "nsys/lm_2_7B_nvtx"): "AMBIGUOUS",
    ("nsys/small_fwd", "nsys/small_fwd_cl4096"): "SLOWER",
    ("nsys/small_fwd", "nsys/small_bwd"): "SLOWER",
    ("nsys/small_bwd", "nsys/small_opt"): "AMBIGUOUS",
    ("nsys/mfu_2gpu_before", "nsys/mfu_2gpu_after"): "AMBIGUOUS",
}


def real(folder: Path, name: str) -> Side:
    suffix = ".json.gz" if name.startswith("torch") else ".sqlite.gz"
    return open_side(str(folder / (name + suffix)))


@pytest.mark.parametrize("pair", REAL, ids=" -> ".join)
def test_real_pairs(real_data: Path, pair: tuple[str, str]) -> None:
    expected = json.loads((real_data / "expected.json").read_text())["pairs"]
    facts = next(
        fact
        for fact in expected.values()
        if all(fact[s].startswith(name + ".") for s, name in zip("ab", pair, strict=True))
    )
    found = judged(real(real_data, pair[0]), real(real_data, pair[1]))
    assert (found.verdict, found.confidence) == (REAL[pair], Confidence.SINGLE)
    for ours, theirs in (("gpu_time_ns", "gpu_ns"), ("span_ns", "gpu_span_ns")):
        assert found.evidence[ours]["a"] == facts["a_values"][theirs]
        assert found.evidence[ours]["b"] == facts["b_values"][theirs]
    assert said(found, "one capture a side") or said(found, "warm-up")


def test_contradictions_in_real_pairs_are_said(real_data: Path) -> None:
    for pair, words in (
        (("leimao_without_make_graphed", "leimao_with_make_graphed"), ("up 4.5%", "falls 43.9%")),
        (("kineto_nw0", "kineto_nw4"), ("up 1.8%", "falls 19.6%")),
        (("switch_4batch", "switch_4batch_rerun"), ("up 10.7%", "falls 18.9%")),
        (("particle_fwd_bs16", "particle_fwd_bs128"), ("up 251.5%", "stays")),
    ):
        a, b = (real(real_data, f"torch/{name}") for name in pair)
        assert said(judged(a, b), *words)
    a, b = (real(real_data, f"torch/switch_4batch{end}") for end in ("", "_rerun"))
    assert said(judged(a, b), "cannot be told from noise")


@pytest.mark.parametrize("name", ["vllm_graph_decode", "vllm_graph_piecewise"])
def test_a_kernel_that_is_halved_in_place_moves_gpu_time_and_no_span(
    real_data: Path, tmp_path: Path, name: str
) -> None:
    """The copy keeps every start: what the kernel saves is idle time, so the span cannot fall."""
    a = real(real_data, f"torch/{name}")
    document = json.loads(gzip.decompress((real_data / f"torch/{name}.json.gz").read_bytes()))
    events: list[dict[str, Any]] = document["traceEvents"]
    kernels = [e for e in events if str(e.get("cat")).lower() == "kernel"]
    by_name: dict[str, float] = {}
    for e in kernels:
        by_name[e["name"]] = by_name.get(e["name"], 0) + e["dur"]
    top = max(by_name, key=lambda name: by_name[name])
    for e in kernels:
        if e["name"] == top:
            e["dur"] = round(e["dur"] / 2, 3)
    b = open_side(str(write(tmp_path / "halved.json", json.dumps(document))))
    found = judged(a, b)
    assert found.verdict == "AMBIGUOUS" and found.ratio == pytest.approx(1, abs=0.01)
    assert found.evidence["gpu_time_ns"]["ratio"] < 0.85
    assert said(found, "GPU time is down", "idle")


def _files() -> list[str]:
    place = Path(os.environ.get("WORKLOG_TEST_DATA", "nowhere"))
    found = [*place.glob("torch/*.json.gz"), *place.glob("nsys/*.sqlite.gz")]
    return sorted(str(path.relative_to(place)) for path in found) or ["no file"]


@pytest.mark.parametrize("name", _files())
def test_every_real_file_is_the_same_as_itself(real_data: Path, name: str) -> None:
    found = judged(*(open_side(str(real_data / name)) for _ in "ab"))
    assert (found.verdict, found.ratio) == ("SAME", 1.0)
