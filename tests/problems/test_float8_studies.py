"""Do the studies say what they measure? Generated code, and the ablation's four cells."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from common.cli import main
from common.contract.problem import load_problem
from common.errors import UsageError
from common.experiments.request import limited, packages_root, settle
from common.experiments.study import Wish, run_script
from common.floors.published import MODELS
from common.floors.traffic import bytes_per_weight
from common.pages.blocks import render_block
from common.recording.run_folder import open_run
from common.report.summary import build_summary

PROBLEM = load_problem("float8_weight_only")
sys.path.insert(0, str(PROBLEM.folder))  # what its scripts import lies beside them
no_triton = pytest.mark.skipif(
    not (packages_root() / "triton-3.9.0").is_dir(), reason="triton is not installed"
)


def module(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"float8_{name}", PROBLEM.folder / f"{name}.py")
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    return found


@pytest.mark.slow
@no_triton
def test_only_the_fix_with_one_row_and_the_flag_is_fused_on_a_gpu() -> None:
    study = module("study_codegen")
    table = study.readings("0.14.1", "cuda")
    seen = {(r["batch"], r["coordinate_descent"]): r["bytes_per_weight"] for r in table}
    assert seen == {(1, True): 1, (1, False): 5, (4, True): 5, (4, False): 5}
    old = {**table[0], "torchao": "0.13.0", "bytes_per_weight": 29, "extern": ["x"]}
    assert all(check["holds"] for check in study.checks([*table, old]))
    table[0]["bytes_per_weight"] = 5
    assert [check["holds"] for check in study.checks([*table, old])] == [True, False, True]


def test_the_recorded_code_says_the_same_of_all_three_versions() -> None:
    folder = PROBLEM.folder / PROBLEM.evidence["codegen"] / "traces" / "codegen"
    rows = json.loads((folder / "tables.json").read_text())["rows"]["rows"]
    assert len(rows) == 2 * 3 * 2 * 2
    moved = {tuple(row[:4]): row[-1] for row in rows}
    for (target, version, batch, flag), bytes_ in moved.items():
        fused = target == "cuda" and batch == "1" and flag == "on"
        assert bytes_ == ("29" if version == "0.13.0" else "1" if fused else "5")


def test_the_ablation_is_the_two_by_two_twice_with_caches_off() -> None:
    names = PROBLEM.study_variants("ablation")
    cells = [PROBLEM.variants[name] for name in names]
    assert sorted((tuple(c.settings["patches"]), c.settings["compiled"]) for c in cells) == sorted(
        (patches, mode)
        for patches in [(), ("2950",), ("2961",), ("2950", "2961")]
        for mode in ("none", "all")
    )
    for cell in cells:
        assert cell.packages == ("torchao==0.13.0",) and cell.role == "diagnostic"
        assert cell.environment["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] == "1"
        patches, compiled = cell.settings["patches"], cell.settings["compiled"] == "all"
        expected = 5 if compiled and "2961" in patches else 21 if "2950" in patches else 29
        assert bytes_per_weight(cell.traffic["cpu"]) == expected


COUNT = """
import ast, inspect, json, sys
sys.path.insert(0, sys.argv[1])
import ablation, torch
from torch.utils._python_dispatch import TorchDispatchMode
from torchao.quantization import quant_primitives
from torchao.quantization.quantize_.workflows.float8 import float8_tensor
name, expand = "_dequantize_affine_float8", "_expand_scale_to_tensor_shape"
before = getattr(quant_primitives, expand)
parts = ast.parse(inspect.getsource(quant_primitives)).body
(body,) = [n for n in parts if isinstance(n, ast.FunctionDef) and n.name == name]
body.decorator_list = []  # the opaque operator's own body, taken out of its registration
exec(compile(ast.Module([body], []), "body", "exec"), vars(quant_primitives))
opaque = getattr(quant_primitives, name)
N, K = 256, 128

def touched(t):
    elements = 1
    for size, stride in zip(t.shape, t.stride()):
        elements *= size if stride else 1
    return elements * t.element_size() / (N * K)

class Count(TorchDispatchMode):
    total = 0
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [a for a in args if isinstance(a, torch.Tensor)]
        shared = {a.untyped_storage().data_ptr() for a in tensors}
        name = func.__name__
        if isinstance(out, torch.Tensor) and "empty" not in name:
            if out.numel() == N * K and out.untyped_storage().data_ptr() not in shared:
                self.total += sum(map(touched, tensors)) + touched(out)
        return out

w, s = torch.randn(N, K).to(torch.float8_e4m3fn), torch.rand(N, 1) + 0.5
found = {}
for patches in ("", "2950", "2961", "2950+2961"):
    setattr(quant_primitives, expand, before)
    float8_tensor._dequantize_affine_float8 = opaque
    ablation.apply([p for p in patches.split("+") if p])
    assert (float8_tensor._dequantize_affine_float8 is opaque) == ("2961" not in patches)
    with Count() as count:
        y = float8_tensor._dequantize_affine_float8(w, s, torch.bfloat16)
    found[patches] = [count.total + 2, torch.equal(y, (w.float() * s).bfloat16())]
print(json.dumps(found))
"""


@pytest.mark.slow
def test_each_patched_torchao_moves_the_bytes_of_its_cell() -> None:
    """Settles 21 against 25: the [N, 1] scale is read as 4 / K bytes per weight, not as 4."""
    done = subprocess.run(
        [sys.executable, "-c", COUNT, str(PROBLEM.folder)],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(packages_root() / "torchao-0.13.0")},
    )
    found = json.loads(done.stdout)
    assert {name: right for name, (_, right) in found.items()} == dict.fromkeys(found, True)
    for patches, expected in (("", 29), ("2950", 21), ("2961", 29), ("2950+2961", 21)):
        assert found[patches][0] == pytest.approx(expected, abs=0.1), patches


def test_a_study_that_does_not_exist_is_refused_with_the_choices(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(UsageError, match="ablation, codegen"):
        PROBLEM.study_variants("speed")
    assert main(["bench", "float8_weight_only", "--study", "speed"]) == 2
    known = "there are: ablation, codegen, conversion, decode, kernels, layers"
    assert known in capsys.readouterr().err
    both = ["bench", "float8_weight_only", "--study", "codegen", "--variant", "bf16"]
    assert main(both) == 2


def test_evidence_is_recorded_into_no_other_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small_problem(tmp_path, monkeypatch)
    elsewhere = tmp_path / "problems" / PROBLEM.name
    folder.rename(elsewhere)  # where the command finds its problems; the script is this checkout's
    before = {path: path.read_bytes() for path in elsewhere.rglob("*") if path.is_file()}
    done = subprocess.run(
        [sys.executable, str(PROBLEM.folder / "record_studies.py"), "codegen"],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(PROBLEM.folder.parents[1])},
    )
    assert done.returncode == 2 and "is another checkout's" in done.stderr
    assert before == {path: path.read_bytes() for path in elsewhere.rglob("*") if path.is_file()}


def test_a_study_whose_check_fails_or_that_breaks_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = small_problem(tmp_path, monkeypatch)
    document = {"schema": "worklog.study/1", "title": "t", "columns": ["a"], "rows": [[None]]}
    for holds, code in ((True, 0), (False, 1)):
        text = json.dumps(document | {"checks": [{"says": "it is", "holds": holds}]})
        (folder / "study_x.py").write_text(f"print({text!r})")
        assert run_script("small", "x", Wish("cpu", out=tmp_path / "out")) == code
        assert ("holds: it is" if holds else "FAILS: it is") in capsys.readouterr().out
    (folder / "study_x.py").write_text("raise SystemExit(3)")
    assert main(["bench", "small", "--study", "x", "--out", str(tmp_path / "bad")]) == 1
    assert "exit code 3" in capsys.readouterr().err
    (left,) = (tmp_path / "bad").glob("small/*/*")
    assert left.name.endswith(".unfinished")


def small_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A problem with this one's variants and, as yet, no study of its own but those of variants."""
    folder = tmp_path / "problems" / "small"
    folder.mkdir(parents=True)
    (folder / "problem.toml").write_text((PROBLEM.folder / "problem.toml").read_text())
    (folder / "predictions.toml").write_text('schema = "worklog.predictions/1"\n')
    monkeypatch.setenv("WORKLOG_ROOT", str(tmp_path))
    return folder


SCRIPT = """
import json, os, sys
from common.experiments.study import add_sample
add_sample({"round": 0, "order": 0, "variant": "a", "phase": "p", "duration_ns": 7})
print(json.dumps({"schema": "worklog.study/1", "title": "t " + sys.argv[2], "columns": ["a", "b"],
    "rows": [["x|y", 1]], "right": ["b"], "checks": [{"says": "c", "holds": False}],
    "figures": {"f": {"value": 1.5, "interval": [1.4, 1.6], "unit": "u"}},
    "facts": {"torch": "9"}}))
"""


def test_a_study_is_kept_as_a_run_that_pages_and_predictions_can_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = small_problem(tmp_path, monkeypatch)
    (folder / "study_x.py").write_text(SCRIPT)
    (folder / "predictions.toml").write_text(
        'schema = "worklog.predictions/1"\n[[set]]\nname = "s"\ndevices = ["cpu-"]\n'
        'preset = "x-tiny"\nsealed = "2026-11-21"\nbasis = "b"\n[[set.prediction]]\n'
        """id = "X1"\nquantity = 'figure("x", "f")'\nlow = 1\nhigh = 2\nbecause = "b"\n"""
    )
    command = ["bench", "small", "--study", "x", "--preset", "tiny", "--device", "cpu"]
    assert main([*command, "--out", str(folder / "recorded"), "--json"]) == 1  # its check says no
    assert json.loads(capsys.readouterr().out)["title"] == "t tiny"
    (place,) = (folder / "recorded").glob("small/*/*")
    run = open_run(place)
    assert run.finished and [s["duration_ns"] for s in run.samples()] == [7]
    assert str(tmp_path) not in (place / "manifest.json").read_text()
    text = (folder / "problem.toml").read_text()
    text = text[: text.index("[evidence]")] + f'[evidence]\nx = "{place.relative_to(folder)}"\n'
    (folder / "problem.toml").write_text(text)
    problem = load_problem("small")
    table = render_block(problem, "table", {"run": "x", "variant": "x", "table": "rows"})
    assert "| x&#124;y | 1 |" in table and "_t tiny._" in table and "preset x-tiny" in table
    shown = render_block(problem, "table", {"run": "x", "variant": "x", "table": "checks"})
    assert "**does not hold**" in shown
    scored = render_block(problem, "predictions", {"run": "x", "set": "s"})
    assert "1.5 (1.4 … 1.6) | hit |" in scored and "sealed before it was made" in scored
    assert build_summary(run) == json.loads((place / "summary.json").read_text())


def test_the_limits_of_a_study_change_the_preset_and_nothing_else() -> None:
    request = limited(settle("float8_weight_only", "tiny", device="cpu"), "ablation")
    assert request.preset.name == "tiny" and request.preset.max_rounds == 10
    assert request.preset.settings["decode_steps"] == 1
    assert request.preset.settings["model"] == "tiny"
    assert request.preset.max_seconds == 10  # of tiny: a study never takes longer than its preset
    assert limited(request, "codegen") == request
    assert limited(request, "decode") == request  # its longer limits are of the preset cpu
    of_cpu = settle("float8_weight_only", "cpu", device="cpu")
    longer = limited(of_cpu, "decode").preset
    assert (longer.max_rounds, longer.max_seconds) == (200, 200)
    assert longer.settings == of_cpu.preset.settings | {"decode_steps": 8}
    assert of_cpu.preset.max_seconds == 95 and of_cpu.preset.settings["decode_steps"] == 4
    more = limited(of_cpu, "ablation").preset
    assert more.settings == of_cpu.preset.settings | {"decode_steps": 1, "model": "cpu-layer"}
    assert more.max_seconds == 150 and of_cpu.preset.settings["model"] == "cpu"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[studies.ablation]", "[studies.ablatoin]", "ablatoin] names no study; use one of"),
        ("max_rounds = 10\n", "rounds = 10\n", "ablation] sets 'rounds'; use one of"),
        ("decode.presets.cpu]", "decode.presets.gpu]", "presets.gpu] names no preset; use one of"),
        ("max_rounds = 200", "rounds = 200", "presets.cpu] sets 'rounds'; use one of"),
        ("settings = { model", "setting = { model", "presets.cpu] sets 'setting'; use one of"),
    ],
)
def test_limits_of_no_study_or_of_something_else_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, says: str
) -> None:
    path = small_problem(tmp_path, monkeypatch) / "problem.toml"
    text = path.read_text()
    at = text.index("[studies.ablation]")
    path.write_text(text[:at] + text[at:].replace(old, new, 1))
    with pytest.raises(UsageError, match=re.escape(says)):
        load_problem("small")


def quick(study: str, tmp_path: Path, compiler: bool = False) -> tuple[dict[str, Any], Path]:
    """A study's real script, small; without the compiler everything but the generated code."""
    command = [sys.executable, "-m", "common.cli", "bench", "float8_weight_only", "--study", study]
    command += ["--preset", "tiny", "--device", "cpu", "--json", "--out", str(tmp_path)]
    environment = {**os.environ, "TORCHDYNAMO_DISABLE": "0" if compiler else "1"}
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=600, env=environment
    )
    assert done.returncode in (0, 1), done.stderr
    (folder,) = tmp_path.glob("float8_weight_only/*/*")
    return json.loads(done.stdout), folder


@pytest.mark.slow
def test_the_layers_of_every_library_run_beside_ours(tmp_path: Path) -> None:
    document, folder = quick("layers", tmp_path)
    facts = document["facts"]
    assert facts["missing"].keys() == {"GemLite A16W8"}  # needs a GPU, and is listed with that
    assert facts["sides"]["torchao 0.14.1"]["torchao"] == "0.14.1"
    errors = {name: side.get("error") for name, side in facts["sides"].items()}
    assert errors.pop("copy") is None and errors.pop("bf16") < 0.005
    assert all(0.01 < error < 0.06 for error in errors.values()), errors
    figures = document["figures"]
    assert figures["copy-share-m1"]["value"] == 1
    assert figures["fused-float8-share-m4"]["value"] > 0
    assert {"torchao-0.18.0-over-fused-m1", "bf16-over-fused-m4"} <= figures.keys()
    assert len(open_run(folder).samples()) == 5 * 2 * 10


@pytest.mark.slow
def test_the_kernels_are_measured(tmp_path: Path) -> None:
    document, folder = quick("kernels", tmp_path)
    named = {"ahead_4096x4096", "share_4096x4096", "roof_share_4096x4096", "own_share_2048x6144"}
    assert named <= set(document["figures"])
    assert all(f["interval"] for f in document["figures"].values())
    samples = open_run(folder).samples()
    assert {s["variant"] for s in samples} >= {"fused float8", "own bf16 GEMV", "read float8"}
    assert document["facts"]["weights_on_huge_pages"].endswith("%")


@pytest.mark.slow
def test_the_passes_are_measured_and_what_codes_and_loads_are_worth(tmp_path: Path) -> None:
    document, _ = quick("conversion", tmp_path, compiler=True)
    assert document["figures"]["cast_ns_float8"]["value"] > 0
    with_avx = "AVX" in document["facts"]["cpu_capability"]
    # With the one whose load is changed: Inductor still writes the load that is named.
    assert len(document["checks"]) == 6 and len(document["rows"]) == (26 if with_avx else 22)
    study = module("study_conversion")
    assert (study.WORTH.keys() <= document["figures"].keys()) == with_avx
    held = document["facts"]["vectors_with_a_subnormal_code"]
    assert held["quantised"] < "1" and held[study.inputs.EVERY_SECOND] == "50.00%"


def test_the_codes_differ_in_how_many_vectors_hold_a_subnormal_one() -> None:
    inputs = module("conversion_inputs")
    codes, scale = inputs.quantised(512, 512)
    back = codes.view(torch.float8_e4m3fn).float()
    assert torch.equal(back.abs().amax(1), torch.full((512,), 448.0)) and scale.shape == (512, 1)
    assert 0 < inputs.subnormal_share(codes) < 0.01  # a quantised weight hardly has any
    found = inputs.patterns(512, 512)
    shares = {name: inputs.subnormal_share(held) for name, held in found.items()}
    assert shares[inputs.NO_SUBNORMAL] == 0 and shares[inputs.EVERY_SECOND] == 0.5
    assert shares[inputs.HALF_AT_RANDOM] == pytest.approx(0.5, abs=0.02)
    assert shares[inputs.AT_RANDOM] == pytest.approx(1 - (1 - 7 / 127) ** 16, abs=0.02)
    values = {name: held.view(torch.float8_e4m3fn).float() for name, held in found.items()}
    assert all(each.isfinite().all() for each in values.values())


def test_the_faster_of_the_two_reads_is_the_bandwidth() -> None:
    study = module("study_kernels")
    taken = {name: [100 + n] * 5 for n, name in enumerate(study.ALL_READS)}
    taken["read float8, no prefetch"] = [90] * 5
    taken["read bf16"] = [80, 80, 900, 900, 900]  # by its median, not by its best
    found = study.bandwidths(taken)
    assert found == {1: [90] * 5, 2: taken["read bf16, no prefetch"]}


def test_the_gpu_checks_want_the_bandwidth_and_every_library_behind() -> None:
    study = module("study_layers")
    preset = {"rows": 64, "columns": 64, "count": 2, "batches": [1]}
    durations = {"fused float8": 60, "copy": 100, "bf16": 115, "torchao 0.14.1": 70}
    durations["torchao 0.18.0"] = 58
    taken = {(n, "M=1"): [ns * 1000 + i for i in range(12)] for n, ns in durations.items()}
    rows, figures = study.report(taken, preset, {"GemLite A16W8": "no GPU"})
    assert figures["fused-float8-share-m1"]["value"] == pytest.approx(100 / 60 / 2, rel=1e-3)
    assert figures["bf16-share-m1"]["value"] == pytest.approx(100 / 115, rel=1e-3)
    verdicts = {check["says"].split(" is ")[0]: check["holds"] for check in
                study.checks(figures, "cuda")}  # fmt: skip
    assert verdicts["bf16-over-fused-m1"] and verdicts["torchao-0.14.1-over-fused-m1"]
    assert not verdicts["torchao-0.18.0-over-fused-m1"]
    assert [holds for says, holds in verdicts.items() if says.startswith("one row")] == [False]
    assert rows[-1][-1] == "no GPU"
    assert study.checks(figures, "cpu")[0]["holds"]


def test_figures_are_drawn_from_what_is_recorded() -> None:
    drawing = module("figures")
    problem = load_problem("float8_weight_only")
    drawn = drawing.figures(problem)
    assert list(drawn) == [
        f"{name}.svg" for name, (key, _) in drawing.FIGURES.items() if key in problem.evidence
    ]
    for name, text in drawn.items():
        picture = ElementTree.fromstring(text)
        assert picture.tag.endswith("svg") and len(text) < 300_000
        assert "measured-cpu" in text
        committed = problem.folder / "figures" / name
        assert committed.read_text() == text, "draw the figures anew"


def test_the_numeric_answers_of_the_exercises_are_computed() -> None:
    page = (PROBLEM.folder / "WORKLOG.md").read_text()
    weights, head = MODELS["8B"].linears, MODELS["8B"].head
    assert f"{weights:,} weights" in page and f"{head:,}" in page
    rates = [1792e9 / (bytes_ * weights) for bytes_ in (29, 21, 5, 2, 1)]
    answer = "{:.1f}, {:.1f}, {:.0f}, {:.0f} and {:.0f}.".format(*rates)
    assert answer in page
    assert f"= {14 * head / 1e9:.2f} GB" in page
    assert f"5.5 ÷ 3.65 = {5.5 / 3.65:.1f}, and 1.8 ÷ 0.45 = {1.8 / 0.45:.1f}" in page


COMPUTES = (
    r"\tv(?:p(?:and|or|xor|sll|srl|sra|madd|mul|add|sub|shuf|unpck|erm|ternlog)\w*"
    r"|f\w+ps|dp\w+ps|mulps|addps|cvt\w+)"
)


@pytest.mark.slow
def test_the_kernel_takes_the_instructions_that_the_page_counts() -> None:
    """Counted in the compiled kernel: its longest loop over one row of activations."""
    objdump = shutil.which("objdump")
    assert objdump is not None  # comes with the linker that the kernels are built with
    from fused_float8 import build

    assert build.unavailable() is None
    listing = subprocess.run(
        [objdump, "-d", "--no-show-raw-insn", "-C", str(build.library_path())],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    (dots,) = re.findall(r"^\w+ <.*avx2::dots<4, 4, 1>.*>:\n((?:.+\n)+)", listing, re.M)
    computing, products = innermost_loop(dots.splitlines())
    assert products == 32  # of eight lanes: a line of 64 codes in each of four rows
    today = computing / 8
    page = " ".join((PROBLEM.folder / "WORKLOG.md").read_text().split())
    assert f"{today:g} vector instructions for 32 weights" in page
    assert f"{today - 6:g} instead of {today:g}" in page  # without widening, half the products
    functions = re.findall(r"^\w+ <.*avx512_bf16::.*>:\n((?:.+\n)+)", listing, re.M)
    found = [loop for each in functions for loop in loops(each.splitlines())]
    straight = [loop for loop in found if not re.search(r"\tj", loop[2])]
    one_row = {loop[:2] for loop in straight if "prefetchnta" in loop[2] and "vpunpckl" in loop[2]}
    ((computing, products),) = one_row  # e4m3 and e5m2 alike
    assert products == 2 and f"{computing} vector instructions for 64 weights" in page


def innermost_loop(lines: list[str]) -> tuple[int, int]:
    """Vector instructions that compute, and the products among them, of the loop with most."""
    return max(loop[:2] for loop in loops(lines))


def loops(lines: list[str]) -> Iterator[tuple[int, int, str]]:
    """Of each jump backwards: vector instructions that compute, products among them, the text."""
    places = {line.split(":")[0].strip(): number for number, line in enumerate(lines)}
    for number, line in enumerate(lines):
        jump = re.search(r"\tj\w+\s+(\w+)\b", line)
        start = places.get(jump[1], number) if jump else number
        body = "\n".join(lines[start:number])
        yield len(re.findall(COMPUTES, body)), len(re.findall("fmadd|dpbf16", body)), body


@pytest.mark.parametrize(("found", "judged"), [("AVX512", True), ("AVX2", None), (None, True)])
def test_a_claim_about_one_kind_of_cpu_is_judged_on_no_other(
    tmp_path: Path, found: str | None, judged: bool | None
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(
        PROBLEM.folder / PROBLEM.evidence["pages"], folder, ignore=lambda *_: ["traces"]
    )
    manifest = json.loads((folder / "manifest.json").read_text())
    text = 'ratio("float8wo-0.13.0", "bf16", "decode") >= 5'
    manifest["claims"] = [{"says": "s", "claim": text, "not_with": [], "cpu": "AVX512"}]
    if found is not None:
        manifest["facts"]["bf16"]["cpu_capability"] = found
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (claim,) = build_summary(open_run(folder))["claims"]
    assert claim["reproduced"] is judged and claim["value"] > 5
    if judged is None:
        assert claim["reason"] == "is about CPUs with AVX512, torch finds AVX2 on this one"
