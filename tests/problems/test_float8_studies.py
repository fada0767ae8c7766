"""Do the studies say what they measure? Generated code, and the ablation's four cells."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from common.cli import main
from common.contract.problem import load_problem
from common.errors import UsageError
from common.experiments.request import packages_root
from common.experiments.study import run_script
from common.floors.traffic import bytes_per_weight

PROBLEM = load_problem("float8_weight_only")
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
    table = study.readings("0.13.0", "cuda") + study.readings("0.14.1", "cuda")
    seen = {
        (r["torchao"], r["batch"], r["coordinate_descent"]): r["bytes_per_weight"] for r in table
    }
    assert {key: value for key, value in seen.items() if key[0] == "0.14.1"} == {
        ("0.14.1", 1, True): 1,
        ("0.14.1", 1, False): 5,
        ("0.14.1", 4, True): 5,
        ("0.14.1", 4, False): 5,
    }
    assert {value for key, value in seen.items() if key[0] == "0.13.0"} == {29}
    assert all(check["holds"] for check in study.checks(table))
    table[0]["bytes_per_weight"] = 5
    assert not all(check["holds"] for check in study.checks(table))


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
name = "_dequantize_affine_float8"
if "2961" not in sys.argv[2]:  # the opaque operator's own body, taken out of its registration
    parts = ast.parse(inspect.getsource(quant_primitives)).body
    (body,) = [n for n in parts if isinstance(n, ast.FunctionDef) and n.name == name]
    body.decorator_list = []
    exec(compile(ast.Module([body], []), "body", "exec"), vars(quant_primitives))
    float8_tensor._dequantize_affine_float8 = getattr(quant_primitives, name)
ablation.apply([p for p in sys.argv[2].split("+") if p])
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
                Count.total += sum(map(touched, tensors)) + touched(out)
        return out

w, s = torch.randn(N, K).to(torch.float8_e4m3fn), torch.rand(N, 1) + 0.5
with Count():
    y = float8_tensor._dequantize_affine_float8(w, s, torch.bfloat16)
right = torch.equal(y, (w.float() * s).bfloat16())
print(json.dumps([Count.total + 2, right]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("patches", "expected"), [("", 29), ("2950", 21), ("2961", 29), ("2950+2961", 21)]
)
def test_each_patched_torchao_moves_the_bytes_of_its_cell(patches: str, expected: int) -> None:
    """Settles 21 against 25: the [N, 1] scale is read as 4 / K bytes per weight, not as 4."""
    done = subprocess.run(
        [sys.executable, "-c", COUNT, str(PROBLEM.folder), patches],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(packages_root() / "torchao-0.13.0")},
    )
    counted, right = json.loads(done.stdout)
    assert right
    assert counted == pytest.approx(expected, abs=0.1)


def test_a_study_that_does_not_exist_is_refused_with_the_choices(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(UsageError, match="ablation, codegen"):
        PROBLEM.study_variants("speed")
    assert main(["bench", "float8_weight_only", "--study", "speed"]) == 2
    assert "there are: ablation, codegen, kernels" in capsys.readouterr().err
    both = ["bench", "float8_weight_only", "--study", "codegen", "--variant", "bf16"]
    assert main(both) == 2


def test_a_study_whose_check_fails_or_that_breaks_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "problems" / "small"
    folder.mkdir(parents=True)
    (folder / "problem.toml").write_text((PROBLEM.folder / "problem.toml").read_text())
    (folder / "predictions.toml").write_text((PROBLEM.folder / "predictions.toml").read_text())
    monkeypatch.setenv("WORKLOG_ROOT", str(tmp_path))
    document = {"schema": "worklog.study/1", "title": "t", "columns": ["a"], "rows": [[None]]}
    for holds, code in ((True, 0), (False, 1)):
        text = json.dumps(document | {"checks": [{"says": "it is", "holds": holds}]})
        (folder / "study_x.py").write_text(f"print({text!r})")
        assert run_script("small", "x", False) == code
        assert ("holds: it is" if holds else "FAILS: it is") in capsys.readouterr().out
    (folder / "study_x.py").write_text("raise SystemExit(3)")
    assert main(["bench", "small", "--study", "x"]) == 1
    assert "exit code 3" in capsys.readouterr().err
