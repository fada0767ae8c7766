"""Is the report complete, self-contained and honest about what a run lacks?"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.synthetic_run import GPU, MACHINE, manifest, rewrite, write_run

from common.cli import main
from common.errors import UsageError
from common.report.charts_operators import bars, colours
from common.report.html import write_report
from common.report.run_view import read_view
from common.report.svg import Scale, short

REAL = Path(__file__).parents[1] / "data" / "run_tiny"


def page_of(*folders: Path, place: Path) -> str:
    return write_report(folders, place / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def real_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of(REAL, place=tmp_path_factory.mktemp("page"))


def test_a_page_refers_to_nothing_outside_itself(real_page: str) -> None:
    assert not re.search(r"https?://|//[a-z]+\.|<link|<img|<iframe|@import|url\(", real_page)
    assert not re.search(r"\s(src|style|on\w+)=", real_page)
    assert real_page.count("<script") == 1


def test_the_content_policy_names_the_hashes_of_what_stands_in_the_page(real_page: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', real_page)
    assert policy is not None and policy[1].startswith("default-src 'none'")
    for tag in ("style", "script"):
        content = re.search(rf"<{tag}>(.*?)</{tag}>", real_page, re.DOTALL)
        assert content is not None
        digest = base64.b64encode(hashlib.sha256(content[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]


def test_every_variant_and_claim_of_a_real_run_appears(real_page: str) -> None:
    summary = json.loads((REAL / "summary.json").read_text(encoding="utf-8"))
    for name in summary["variants"]:
        assert f'<th scope="row">{name}</th>' in real_page
    for claim in summary["claims"]:
        assert claim["says"].replace("'", "&#x27;") in real_page
    for result in ("reproduced", "NOT reproduced", "not decided"):
        assert f">{result}</span>" in real_page
    assert "needs a GPU of compute capability 8.9" in real_page


def test_the_page_of_one_run_stays_small(real_page: str) -> None:
    assert len(real_page.encode()) <= 300_000


def test_every_image_has_a_title_and_its_chart_a_description(real_page: str) -> None:
    images = re.findall(r'<svg role="img"[^>]*>(<title>[^<]+</title>)?', real_page)
    assert len(images) > 20 and all(images)
    charts = re.findall(
        r'<figure class="chart"><figcaption>[^<]+(<span class="how">[^<]+)?', real_page
    )
    assert len(charts) > 8 and all(charts)


def test_headings_descend_one_step_at_a_time_and_ids_are_unique(real_page: str) -> None:
    levels = [int(level) for level in re.findall(r"<h(\d)", real_page)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    ids = re.findall(r' id="([^"]+)"', real_page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', real_page)) <= set(ids)


def test_the_parts_of_every_bar_add_up_to_its_total() -> None:
    view = read_view(REAL)
    styles = colours(view, view.phases)
    for phase in view.phases:
        drawn = bars(view, phase, styles[phase])
        assert len(drawn) == 5
        for bar in drawn:
            recorded = view.summary["variants"][bar.variant]["profile"][phase]["time"]
            assert bar.total_ns == recorded["total_ns"] / recorded["occurrences"]
            assert sum(s.time_ns for s in bar.segments) == pytest.approx(bar.total_ns, abs=1e-3)


def test_drawn_shares_fill_the_width(real_page: str) -> None:
    shares = real_page.split("The same time as shares")[1].split("</figure>")[0]
    rows = shares.split('<div class="row">')[1:]
    assert len(rows) == 5
    for row in rows:
        widths = re.findall(r'class="seg [^>]*width="([\d.]+)%"', row)
        assert sum(map(float, widths)) == pytest.approx(100, abs=0.1)


def test_an_operator_keeps_its_colour_over_phases_and_no_two_share_one() -> None:
    view = read_view(REAL)
    styles = colours(view, view.phases)
    for table in styles.values():
        assert len(set(table.values())) == len(table) <= 8
    both = styles["decode"].keys() & styles["prefill"].keys()
    assert "torchao::dequantize_affine_float8" in both
    assert all(styles["decode"][name] == styles["prefill"][name] for name in both)


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    pages = []
    for place in ("a", "b"):
        shutil.copytree(REAL, tmp_path / place / "run")
        pages.append(page_of(tmp_path / place / "run", place=tmp_path / place))
    assert pages[0] == pages[1]


def test_links_to_the_run_are_relative_and_lead_to_files(tmp_path: Path) -> None:
    shutil.copytree(REAL, tmp_path / "runs" / "one")
    page = page_of(tmp_path / "runs" / "one", place=tmp_path)
    links = re.findall(r'href="([^"#][^"]*)"', page)
    assert "runs/one/manifest.json" in links
    assert "runs/one/traces/bf16/trace.json.gz" in links
    assert all((tmp_path / link).is_file() for link in links)
    assert str(tmp_path) not in page


def test_an_unfinished_run_says_so_and_shows_what_it_had(tmp_path: Path) -> None:
    folder = write_run(tmp_path, manifest(), rounds=3, finish=False)
    with (folder / "samples.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"round":3,"varia')  # killed in the middle of a line
    page = page_of(folder, place=tmp_path)
    assert "<strong>Unfinished run.</strong>" in page
    assert "2.00" in page  # decode of the baseline: 8 ms for 4 steps


def test_a_run_killed_while_it_wrote_a_trace_shows_the_whole_ones(tmp_path: Path) -> None:
    folder = tmp_path / "run.unfinished"
    shutil.copytree(REAL, folder)
    cut = folder / "traces" / "bf16" / "trace.json.gz"
    cut.write_bytes(cut.read_bytes()[:9000])
    page = page_of(folder, place=tmp_path)
    assert "Unfinished run." in page
    assert "<caption>float8wo-0.13.0, decode</caption>" in page
    assert "<caption>bf16, decode</caption>" not in page
    finished = tmp_path / "run"
    folder.rename(finished)
    (finished / "summary.json").unlink()
    with pytest.raises(UsageError, match=r"trace.json.gz cannot be read"):
        write_report([finished], tmp_path / "report.html")


def test_a_run_killed_before_its_first_sample_still_has_a_page(tmp_path: Path) -> None:
    bare = manifest()
    for key in ("facts", "failures", "sampling"):
        del bare[key]
    page = page_of(write_run(tmp_path, bare, rounds=0, finish=False), place=tmp_path)
    assert "Unfinished run." in page and "No variant of this run was timed" in page


def test_a_finished_run_of_clean_code_has_no_banner(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path, manifest()), place=tmp_path)
    assert 'class="banner"' not in page
    dirty = write_run(tmp_path, manifest(uncommitted_changes=True))
    assert "<strong>Uncommitted changes.</strong>" in page_of(dirty, place=tmp_path)


def test_a_run_without_a_profile_says_what_is_missing(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path, manifest()), place=tmp_path)
    assert "This run was not profiled" in page and "no record of allocations" in page
    assert "Time relative to plain" in page and "SLOWER" in page


def test_a_run_without_timing_shows_its_profile(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(REAL, folder)
    (folder / "samples.jsonl").unlink()
    page = page_of(folder, place=tmp_path)
    assert "No variant of this run was timed" in page
    assert "Time relative to" not in page
    assert "Milliseconds, one scale for all variants" in page and "14.0 MiB" in page


def test_the_page_is_made_from_the_data_and_not_from_the_summary_beside_it(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(REAL, folder)
    kept = (folder / "summary.json").read_text(encoding="utf-8")
    (folder / "summary.json").write_text(kept.replace("14.1437", "99.1437"), encoding="utf-8")
    for path in (folder / "traces").rglob("*.gz"):
        path.unlink()
    page = page_of(folder, place=tmp_path)
    assert "needs profile" in page and "not profiled" in page


@pytest.mark.parametrize(
    "name,text",
    [
        ("manifest.json", '{"schema": "worklog.run/1", "machine": "x"}'),
        ("samples.jsonl", '{"round": 1}\n'),
        ("checks.json", "[1]"),
    ],
)
def test_a_run_whose_files_do_not_fit_together_is_refused_in_one_line(
    name: str, text: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(REAL, folder)
    (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="take the run again"):
        write_report([folder], tmp_path / "page.html")
    assert not list(tmp_path.glob("*.part"))


def test_variants_without_a_time_are_listed_with_the_reason(tmp_path: Path) -> None:
    document = manifest(
        variants=("plain", "slow", "wrong", "broken"),
        failures={"broken": "the compiler\nwas killed"},
        not_applicable={"absent": "needs a GPU"},
    )
    errors = {"prefill": 0.5, "decode": 0.6}
    wrong = {
        "passed": False, "tolerance": 0.1, "reason": "off by 0.6", "relative_error": errors,
        "divergence_nats": errors, "top1_agreement": errors,
    }  # fmt: skip
    page = page_of(write_run(tmp_path, document, checks={"wrong": wrong}), place=tmp_path)
    assert "rejected: off by 0.6" in page
    assert r"failed: the compiler\x0awas killed" in page
    assert "not applicable: needs a GPU" in page
    assert "broken (the compiler was killed)" in page
    # Performance is reported only for what passed its check.
    assert not re.search(r"wrong: 10 samples", page)


def test_a_gpu_run_names_its_gpu(tmp_path: Path) -> None:
    document = manifest(
        device={"kind": "cuda", "slug": "nvidia-h200"},
        origin="measured-gpu",
        machine={**MACHINE, "gpus": [GPU]},
    )
    page = page_of(write_run(tmp_path, document), place=tmp_path)
    assert "<dd>NVIDIA H200</dd>" in page and "<dd>measured-gpu</dd>" in page
    assert "143771 MiB" in page


@pytest.mark.parametrize(
    "odd",
    [
        {"time": {"quantity": "gpu_time_ns", "occurrences": 1, "total_ns": 0, "rows": [],
                  "other_operators": {"rows": 0, "time_ns": 0}, "outside_operators_ns": 0}},
        {},
    ],
)  # fmt: skip
def test_a_phase_that_recorded_nothing_is_left_out(tmp_path: Path, odd: dict[str, Any]) -> None:
    profiles = {"slow": {"profile": {"prefill": odd, "decode": odd}, "memory_timeline": []}}
    page = page_of(write_run(tmp_path, manifest(), profiles=profiles), place=tmp_path)
    assert "This run was not profiled" in page


def test_several_runs_are_compared_before_each_is_shown(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, manifest()), write_run(tmp_path, manifest(problem="other"))]
    page = page_of(*runs, place=tmp_path)
    comparison = page.split('id="comparison"')[1].split("</section>")[0]
    assert all(run.name in comparison for run in runs)
    assert comparison.count("10×") == 2
    assert page.index('id="comparison"') < page.index('id="run1"') < page.index('id="run2"')


def test_the_command_writes_the_report_into_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path, manifest())
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    assert main(["report", str(folder), str(folder)]) == 2
    assert main(["report", str(tmp_path)]) == 2
    assert "give the folder of a run" in capsys.readouterr().err


def test_a_report_of_nothing_and_of_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs a run"):
        write_report([], tmp_path / "report.html")
    folder = write_run(tmp_path, manifest())
    rewrite(folder / "manifest.json", schema="something else")
    with pytest.raises(UsageError):
        write_report([folder], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("low", "high", "logarithmic"),
    [(0, 648, False), (0, 0.003, False), (0.9, 1.1, True), (0.15, 190, True), (1e-6, 1e6, True)],
)
def test_ticks_are_few_and_lie_inside_the_scale(low: float, high: float, logarithmic: bool) -> None:
    scale = Scale(low, high, logarithmic)
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 8
    assert all(-1e-6 <= scale(tick) <= 100 + 1e-6 for tick in ticks)


def test_a_shortened_name_keeps_its_ends() -> None:
    name = "graph_0_cpp_fused__to_copy_add_mean_mul_pow_rsqrt_slice_t_9"
    assert len(short(name)) == 36 and short(name).endswith("_t_9")
    assert short(name).startswith("graph_0_cpp_fused") and short("aten::mm") == "aten::mm"
