"""Does the fused CPU kernel compute what the format says, for every code, shape and input?"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.contract.problem import load_problem
from common.workloads.llama import CONFIGS
from common.workloads.weights import build_random, stored_parts

FOLDER = load_problem("float8_weight_only").folder
sys.path.insert(0, str(FOLDER))

from fused_float8 import operators, packing, tuned_bf16  # noqa: E402

pytestmark = pytest.mark.slow
E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
SETS = ("avx512-bf16", "avx512", "avx2", "avx512-emulated", "avx512-bf16-emulated", "portable")
# Half a unit in the last of bfloat16's 8 digits.
ONE_ROUNDING = 2.0**-8 * 1.001


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    assert operators.UNAVAILABLE is None


@pytest.fixture
def default_set() -> Iterator[str]:
    before = operators.instruction_set("")
    yield before
    operators.instruction_set(before)


def usable_sets() -> list[str]:
    found = []
    for name in SETS:
        try:
            found.append(operators.instruction_set(name))
        except ValueError:
            continue
    return found


def exact(x: Tensor, packed: packing.PackedWeight) -> Tensor:
    return (x.double() @ packed.values.double().T) * packed.scale.double()


def random_case(m: int, n: int, k: int, dtype: torch.dtype = E4M3, per_row: bool = True) -> Any:
    generator = torch.Generator().manual_seed(m * 7919 + n * 31 + k)
    weight = torch.randn(n, k, generator=generator)
    x = torch.randn(m, k, generator=generator).bfloat16()
    return x, packing.pack(weight, "row" if per_row else "tensor", dtype)


def run(x: Tensor, packed: packing.PackedWeight) -> Tensor:
    y: Tensor = operators.linear(x, packed.values, packed.scale, packed.nan_rows)
    return y


def assert_rounded_once(y: Tensor, wanted: Tensor, x: Tensor, packed: packing.PackedWeight) -> None:
    """Each output within one rounding of the exact one, and the error of summing in float32."""
    sizes = (x.double().abs() @ packed.values.double().abs().T) * packed.scale.double()
    allowed = ONE_ROUNDING * wanted.abs() + 1e-6 * sizes
    worst = ((y.double() - wanted).abs() - allowed).max()
    assert worst <= 0, f"off by {worst:.3g} beyond the allowed"


@pytest.mark.parametrize("dtype", [E4M3, E5M2])
def test_every_code_is_decoded_exactly_by_every_instruction_set(
    dtype: torch.dtype, default_set: str
) -> None:
    values = torch.arange(256, dtype=torch.uint8).view(dtype).reshape(256, 1)
    finite = ~values.float().isinf().reshape(-1)  # e5m2's infinities are refused when packed
    packed = packing.pack_float8(values[finite], torch.ones(()))
    wanted = packed.values.float().bfloat16().reshape(-1)
    for name in usable_sets():
        operators.instruction_set(name)
        for columns in (1, 64, 100):  # in the tail, in the vectors, in both
            wide = packed.values.expand(-1, columns).contiguous()
            one = packing.pack_float8(wide, torch.ones(()))
            for place in (0, columns // 2, columns - 1):
                x = torch.zeros(1, columns, dtype=torch.bfloat16)
                x[0, place] = 1.0
                # A sum that starts at +0 has no -0, so values are compared and not their bits.
                assert torch.equal(run(x, one)[0].nan_to_num(7e4), wanted.nan_to_num(7e4))


@pytest.mark.parametrize("dtype", [E4M3, E5M2])
@pytest.mark.parametrize("per_row", [True, False])
def test_any_shape_agrees_with_the_exact_product(
    dtype: torch.dtype, per_row: bool, default_set: str
) -> None:
    shapes = [(1, 1, 1), (1, 7, 33), (1, 64, 128), (2, 9, 64), (3, 5, 1000), (5, 4, 63)]
    shapes += [(1, 4, 64), (1, 11, 4161)]  # four rows at a time, and three left over
    shapes += [(1, 5, 7168), (1, 5, 7169)]  # beyond it another set's kernel may be taken
    shapes += [(8, 130, 200), (17, 33, 515), (64, 65, 129)]
    for name in usable_sets():
        operators.instruction_set(name)
        for m, n, k in shapes:
            x, packed = random_case(m, n, k, dtype, per_row)
            assert_rounded_once(run(x, packed), exact(x, packed), x, packed)


def test_rows_too_long_for_the_first_cache_go_to_the_kernel_that_is_faster_there(
    default_set: str,
) -> None:
    if "avx512" not in usable_sets():
        pytest.skip("this CPU has no AVX-512")

    def by(name: str, columns: int) -> tuple[Tensor, Tensor]:
        half_x, half = random_case(1, 16, columns // 2)
        # The exact sum is zero, so that what comes out is the order in which a kernel adds.
        x = torch.cat([half_x, half_x], 1)
        values = torch.cat([half.values.float(), -half.values.float()], 1)
        packed = packing.pack_float8(values.to(E4M3), half.scale)
        operators.instruction_set(name)
        return run(x, packed), operators.bf16_gemv(x, values.bfloat16())

    for here, there in zip(by("avx512", 7296), by("avx2", 7296), strict=True):
        assert torch.equal(here, there)
    # Up to there it is a kernel of its own, which adds in another order (bf16's adds in the same).
    assert not torch.equal(by("avx512", 7168)[0], by("avx2", 7168)[0])


def test_all_batch_sizes_give_the_rows_of_single_calls() -> None:
    x, packed = random_case(64, 21, 130)
    for m in range(1, 65):
        assert_rounded_once(run(x[:m], packed), exact(x[:m], packed), x[:m], packed)


def test_one_wrong_code_or_scale_is_seen() -> None:
    x, packed = random_case(1, 64, 256)
    x[0, 3] = 1.0
    values, scale = packed.values.clone(), packed.scale.clone()
    values.view(torch.uint8)[5, 3] ^= 0x08  # one exponent bit of one weight
    scale[7] *= 1.02
    for wrong in (
        packing.PackedWeight(values, packed.scale, packed.nan_rows),
        packing.PackedWeight(packed.values, scale, packed.nan_rows),
        packing.PackedWeight(packed.values, packed.scale.roll(1), packed.nan_rows),
    ):
        with pytest.raises(AssertionError, match="off by"):
            assert_rounded_once(run(x, wrong), exact(x, packed), x, packed)


@pytest.mark.parametrize("power", [-126, -60, -24, -20, 0, 57, 60, 120])
def test_activations_of_any_size_lose_nothing_to_the_power_of_two(
    power: int, default_set: str
) -> None:
    x, packed = random_case(1, 16, 96)
    scaled = (x.double() * 2.0**power).bfloat16()
    packed = packing.PackedWeight(
        packed.values, packed.scale * 2.0 ** (-power // 2), packed.nan_rows
    )
    for name in usable_sets():
        operators.instruction_set(name)
        if name != "portable" or abs(power) <= 100:  # which brings nothing to another size
            assert_rounded_once(run(scaled, packed), exact(scaled, packed), scaled, packed)


def test_weights_of_subnormal_codes_only_survive_flush_to_zero(default_set: str) -> None:
    values = torch.randint(0, 8, (8, 128), dtype=torch.uint8).view(E4M3)
    packed = packing.pack_float8(values, torch.ones(8))
    x = torch.randn(1, 128).bfloat16()
    assert torch.set_flush_denormal(True)
    try:
        results = [run(x, packed) for name in usable_sets() if operators.instruction_set(name)]
    finally:
        torch.set_flush_denormal(False)
    for y in results:
        assert_rounded_once(y, exact(x, packed), x, packed)


def test_nan_and_infinity_go_where_the_format_says(default_set: str) -> None:
    x, packed = random_case(2, 6, 70)
    values = packed.values.clone()
    values.view(torch.uint8)[2, 69] = 0xFF
    with_nan = packing.pack_float8(values, packed.scale)
    unlisted = packing.PackedWeight(with_nan.values, with_nan.scale, with_nan.nan_rows[:0])
    infinite, unknown = x.clone(), x.clone()
    infinite[1, 5], unknown[1, 5] = float("inf"), float("nan")
    for name in usable_sets():
        operators.instruction_set(name)
        # Where codes are looked up, a NaN is one by itself; the others need the list of rows.
        for weight in (with_nan, unlisted) if "bf16" in name else (with_nan,):
            y = run(x, weight)
            assert y[:, 2].isnan().all()
            assert y[:, [0, 1, 3, 4, 5]].isfinite().all()
        y = run(infinite, packed)
        assert not y[1].isfinite().any()
        assert y[0].isfinite().all()
        assert run(unknown, packed)[1].isnan().all()


def test_scales_and_values_are_torchaos() -> None:
    weight = torch.randn(24, 48)
    weight[3] = 0
    packed = packing.pack(weight.bfloat16())
    wide = weight.bfloat16().float()
    scale = wide.abs().amax(1).clamp(min=1e-12) / 448
    assert torch.equal(packed.scale, scale)
    assert torch.equal(
        packed.values.float(), (wide / scale[:, None]).clamp(-448, 448).to(E4M3).float()
    )


def test_the_rows_are_shared_among_torchs_threads() -> None:
    """By the kernel's count of each thread's CPU time; a busy machine slows both alike."""
    weight = torch.zeros(2048, 8192, dtype=torch.uint8)
    threads = os.listdir("/proc/self/task")
    before = {name: ticks(name) for name in threads}
    x, scale = torch.zeros(8, 8192, dtype=torch.bfloat16), torch.ones(1)
    nan_rows = torch.zeros(0, dtype=torch.int64)
    for _ in range(40):
        operators.linear(x, weight.view(E4M3), scale, nan_rows)
    spent = [ticks(name) - before.get(name, 0) for name in os.listdir("/proc/self/task")]
    busy = sorted(spent, reverse=True)[: torch.get_num_threads()]
    assert min(busy) > max(busy) / 4, busy


def ticks(thread: str) -> int:
    fields = Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11])  # user time


def test_an_empty_batch_gives_an_empty_result() -> None:
    _, packed = random_case(1, 6, 70)
    assert run(torch.empty(0, 70, dtype=torch.bfloat16), packed).shape == (0, 6)


def test_activations_need_not_be_contiguous() -> None:
    x, packed = random_case(4, 6, 70)
    strided = x.T.contiguous().T
    assert not strided.is_contiguous()
    assert torch.equal(run(strided, packed), run(x, packed))
    transposed = packed.values.T.contiguous().T
    assert torch.equal(run(x, packing.pack_float8(transposed, packed.scale)), run(x, packed))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x, w, s: (x.float(), w, s), r"x must be bfloat16 \(M, 70\), not .*[fF]loat"),
        (lambda x, w, s: (x[:, :69], w, s), r"x must be bfloat16 \(M, 70\), not .*69"),
        (lambda x, w, s: (x[0], w, s), r"x must be bfloat16 \(M, 70\), not .*70"),
        (lambda x, w, s: (x, w.float(), s), r"weight must be .*float8_e4m3fn.*, not .*[fF]loat"),
        (lambda x, w, s: (x, w.T, s), r"weight must be contiguous .*70, 6"),
        (lambda x, w, s: (x, w[None], s), r"weight must be .*, not .*1, 6, 70"),
        (
            lambda x, w, s: (x, w.view(torch.float8_e4m3fnuz), s),
            r"weight must be .*, not .*loat8_e4m3fnuz .*6, 70",
        ),
        (lambda x, w, s: (x, w, s[:5]), r"scale must be .*6 elements or 1, not .*5"),
        (lambda x, w, s: (x, w, s.repeat(2, 1)), r"scale must be .*6 elements or 1, not .*2, 6"),
        (lambda x, w, s: (x, w, s.double()), r"scale must be .*float32.*, not .*[dD]ouble|float64"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name_shape_and_dtype(
    change: Any, says: str
) -> None:
    x, packed = random_case(2, 6, 70)
    arguments = change(x, packed.values, packed.scale)
    for computes in (operators.linear, operators.linear_by_torch):
        with pytest.raises(ValueError, match=says):
            computes(*arguments, packed.nan_rows)
    with pytest.raises((ValueError, RuntimeError), match=says):  # when traced, too
        traced = torch.compile(operators.linear, backend="eager", dynamic=False)
        traced(*arguments, packed.nan_rows)


@pytest.mark.parametrize(
    ("nan_rows", "says"),
    [
        (torch.tensor([6]), "nan_rows is out of range"),
        (torch.tensor([-1]), "nan_rows is out of range"),
        (torch.tensor([1], dtype=torch.int32), "nan_rows must be int64"),
    ],
)
def test_rows_that_the_weight_does_not_have_are_refused(nan_rows: Tensor, says: str) -> None:
    x, packed = random_case(2, 6, 70)
    with pytest.raises(ValueError, match=says):
        operators.linear(x, packed.values, packed.scale, nan_rows)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: packing.pack(torch.ones(3)), r"float32 \(3,\)"),
        (lambda: packing.pack(torch.ones(0, 4)), r"not empty, not float32 \(0, 4\)"),
        (lambda: packing.pack(torch.ones(2, 2, dtype=torch.int8)), r"int8 \(2, 2\)"),
        (lambda: packing.pack(torch.ones(2, 2), dtype=torch.int8), "use torch.float8_e4m3fn"),
        (lambda: packing.pack_float8(torch.ones(2, 2), torch.ones(2)), r"float32 \(2, 2\)"),
        (
            lambda: packing.pack_float8(torch.ones(2, 2).to(E4M3), torch.ones(1, 2)),
            r"scale must be .*not float32 \(1, 2\)",
        ),
        (lambda: packing.pack_float8(torch.full((2, 2), 1e9).to(E5M2), torch.ones(2)), "infinit"),
        (
            lambda: packing.pack_float8(torch.ones(2, 3).to(torch.float8_e5m2fnuz), torch.ones(2)),
            r"not float8_e5m2fnuz \(2, 3\)",
        ),
        (
            lambda: packing.pack_float8(torch.ones(0, 4).to(E4M3), torch.ones(())),
            r"not empty, not float8_e4m3fn \(0, 4\)",
        ),
    ],
)
def test_weights_that_cannot_be_packed_are_refused(call: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x, w: (x, w.float()), r"weight must be contiguous bfloat16 \(N, K\), not Float"),
        (lambda x, w: (x, w.T), r"weight must be contiguous bfloat16 .*70, 6"),
        (lambda x, w: (torch.cat([x, x]), w), r"x must be bfloat16 \(1, 70\), not .*\[2, 70\]"),
        (lambda x, w: (x[:, :9], w), r"x must be bfloat16 \(1, 70\), not .*\[1, 9\]"),
    ],
)
def test_the_bf16_baseline_refuses_what_does_not_fit(call: Any, says: str) -> None:
    x, weight = torch.randn(1, 70).bfloat16(), torch.randn(6, 70).bfloat16()
    with pytest.raises(ValueError, match=says):
        operators.bf16_gemv(*call(x, weight))


def test_a_strided_or_wrongly_shaped_scale_is_refused_or_made_whole() -> None:
    x, packed = random_case(2, 6, 70)
    strided = packed.scale.repeat_interleave(2)[::2]
    with pytest.raises(ValueError, match="scale must be contiguous"):
        operators.linear(x, packed.values, strided, packed.nan_rows)
    again = packing.pack_float8(packed.values, strided)  # the packer copies it
    assert torch.equal(run(x, again), run(x, packed))
    for shape in ((7,), (1, 6), (6, 1, 1)):
        with pytest.raises(ValueError, match="scale must be floating-point of shape"):
            packing.pack_float8(packed.values, torch.ones(shape))


@pytest.mark.parametrize("shape", [(3, 5), (2048, 1025), (4096, 1024)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, E4M3])
def test_a_copy_on_huge_pages_is_a_copy(shape: tuple[int, int], dtype: torch.dtype) -> None:
    given = torch.randn(shape).to(dtype)
    for each in (given, given.T):
        moved = operators.on_huge_pages(each)
        assert moved.shape == each.shape and moved.dtype == dtype and moved.is_contiguous()
        assert torch.equal(moved.view(torch.uint8), each.contiguous().view(torch.uint8))
        assert moved.data_ptr() != each.data_ptr()
        if moved.nbytes >= 2 << 20:
            assert moved.data_ptr() % (2 << 20) == 0


def huge_bytes(address: int) -> int:
    """How much of the mapping at `address` the kernel backs with huge pages."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        ends = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if ends is not None:
            inside = int(ends[1], 16) <= address < int(ends[2], 16)
        elif inside and line.startswith("AnonHugePages:"):
            return int(line.split()[1]) << 10
    return 0


def test_a_copy_is_on_huge_pages_even_where_malloc_would_give_used_memory() -> None:
    policy = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not policy.is_file() or "[never]" in policy.read_text():
        pytest.skip("this system has no transparent huge pages")
    given = torch.randint(0, 255, (12 << 20,), dtype=torch.uint8)
    for _ in range(6):  # freed memory of malloc is in small pages and is given again
        used = torch.empty(16 << 20, dtype=torch.uint8).random_()
        moved = operators.on_huge_pages(given)
        del used
        assert huge_bytes(moved.data_ptr()) >= 0.5 * given.nbytes  # the system may be short of them
        assert torch.equal(moved, given)


@torch.no_grad()
def test_the_tuned_baselines_compute_what_torch_does() -> None:
    config = CONFIGS["tiny"].with_cache_length(16)
    device = torch.device("cpu")
    plain = build_random(config, device, 1)
    tuned = build_random(config, device, 1, after_module=tuned_bf16.use_gemv_)
    assert sum(type(m) is tuned_bf16.GemvLinear for m in tuned.modules()) == 15
    for tokens in (torch.tensor([5]), torch.tensor([5, 6, 7])):
        positions = torch.arange(len(tokens))
        wanted = plain(tokens, positions).float()
        error = (tuned(tokens, positions).float() - wanted).norm() / wanted.norm()
        assert error < 0.02
    with pytest.raises(ValueError, match=r"a weight is float32 \(2, 3\)"):
        tuned_bf16.use_gemv_(nn.Linear(3, 2))
    biased = nn.Linear(3, 2).bfloat16()
    wanted = biased(torch.ones(1, 3).bfloat16())
    tuned_bf16.use_gemv_(biased)
    assert torch.allclose(biased(torch.ones(1, 3).bfloat16()), wanted, atol=0.02)


def test_the_bf16_baseline_and_the_read_are_right(default_set: str) -> None:
    for name in usable_sets():
        operators.instruction_set(name)
        # Beyond 4096 columns eight rows at a time; 19 of them leave three over.
        for n, k in [(1, 1), (9, 33), (64, 128), (7, 1000), (19, 4101), (8, 8192)]:
            x, weight = torch.randn(1, k).bfloat16(), torch.randn(n, k).bfloat16()
            wanted = x.double() @ weight.double().T
            sizes = x.double().abs() @ weight.double().abs().T
            error = (operators.bf16_gemv(x, weight).double() - wanted).abs()
            assert (error <= ONE_ROUNDING * wanted.abs() + 1e-6 * sizes).all()
        words = torch.randint(-(2**62), 2**62, (64 * 9,))
        seen = operators.read_only(words)
        assert operators.read_only(words, False) == seen
        for place in range(0, words.numel(), 5):  # no word is left out
            words[place] ^= 1 << 40
            for prefetch in (True, False):
                assert operators.read_only(words, prefetch) == seen ^ 1 << 40
            words[place] ^= 1 << 40


def test_the_instructions_alone_are_not_left_out_by_the_compiler(default_set: str) -> None:
    """Nothing comes of them, and they take time: 64 codes not less than a core's 0.1 ns."""
    for name in usable_sets():
        operators.instruction_set(name)
        began = time.perf_counter_ns()
        counted = operators.instructions_alone(1 << 26)
        took_ns = time.perf_counter_ns() - began
        assert bool(counted) == (name != "portable")
        if counted:
            assert took_ns >= 0.1 * (1 << 26) / 64 / torch.get_num_threads()


def test_the_operator_passes_torchs_own_checks_and_compiles_as_one_graph() -> None:
    x, packed = random_case(3, 6, 70)
    arguments = (x, packed.values, packed.scale, packed.nan_rows)
    # The schema test multiplies its inputs, which torch cannot do in float8.
    checks = ("test_faketensor", "test_autograd_registration")
    torch.library.opcheck(operators.linear, arguments, test_utils=checks)

    def work(x: Tensor) -> Tensor:
        return run(x * 2, packed) + 1

    compiled = torch.compile(work, fullgraph=True)
    assert torch.equal(compiled(x), work(x))


@torch.no_grad()
def test_quantize_drops_into_the_llama_and_gives_torchaos_logits_to_rounding() -> None:
    config = CONFIGS["tiny"].with_cache_length(16)
    device = torch.device("cpu")
    fused = build_random(config, device, 1, after_module=packing.quantize_)
    reference = build_random(config, device, 1)
    linears = [m for m in fused.modules() if isinstance(m, nn.Linear)]
    assert len(linears) == 15
    assert all(type(m) is packing.FusedFloat8Linear for m in linears)
    assert all(part.itemsize == 1 for m in linears for part in stored_parts(m.weight))
    for linear in [m for m in reference.modules() if isinstance(m, nn.Linear)]:
        packed = packing.pack(linear.weight)  # what torchao computes: dequantised, then bf16
        linear.weight.copy_(packed.values.float() * packed.scale[:, None])
    tokens, positions = torch.tensor([5, 6, 7]), torch.arange(3)
    wanted = reference(tokens, positions).float()
    for model in (fused, torch.compile(fused, fullgraph=True)):
        error = (model(tokens, positions).float() - wanted).norm() / wanted.norm()
        assert error < 0.02


def test_a_bias_is_added_and_other_modules_are_left_alone() -> None:
    module = nn.Sequential(nn.Linear(20, 12), nn.LayerNorm(12)).bfloat16()
    linear = module[0]
    before = torch.nn.functional.linear(torch.ones(2, 3, 20).bfloat16(), linear.weight, linear.bias)
    packing.quantize_(module, "tensor")
    assert "per tensor" in repr(module)
    after = module[0](torch.ones(2, 3, 20).bfloat16())
    assert after.shape == (2, 3, 12)
    assert (after - before).norm() / before.norm() < 0.1
    packing.quantize_(module)  # nothing left to do
    assert type(module[1]) is nn.LayerNorm


FALLBACK = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from fused_float8 import operators, packing
print(operators.UNAVAILABLE)
x, packed = torch.randn(3, 100).bfloat16(), packing.pack(torch.randn(300, 100))
y = operators.linear(x, packed.values, packed.scale, packed.nan_rows)
wanted = (x.double() @ packed.values.double().T) * packed.scale.double()
print(bool((y.double() - wanted).norm() / wanted.norm() < 0.004))
"""


def fallback(tmp_path: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(FOLDER.parents[1]), **changes}
    command = [sys.executable, "-c", FALLBACK, str(FOLDER)]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment, cwd=tmp_path
    )


def test_without_a_compiler_one_line_says_so_and_torch_computes(tmp_path: Path) -> None:
    done = fallback(tmp_path, PATH=str(tmp_path), CXX="", WORKLOG_CACHE=str(tmp_path))
    reason, right = done.stdout.splitlines()
    assert "need a C++ compiler and there is none" in reason
    assert right == "True"
    assert [line for line in done.stderr.splitlines() if "compiler" in line] == [
        f"warning: {reason}; computing with torch, slowly"
    ]


def test_a_compiler_that_fails_leaves_nothing_half_done(tmp_path: Path) -> None:
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\ncase $1 in --version) echo 'g++ broken';; *) exit 1;; esac\n")
    broken.chmod(0o755)
    path = f"{tmp_path}:/usr/bin:/bin"
    done = fallback(tmp_path, PATH=path, CXX=str(broken), WORKLOG_CACHE=str(tmp_path / "cache"))
    reason, right = done.stdout.splitlines()
    assert "cannot be built" in reason and right == "True"
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_threads_that_share_rows_leave_none_out(default_set: str, threads: int) -> None:
    """Whoever is done takes half of what another has left: every row once, whatever the order."""
    before = torch.get_num_threads()
    try:
        for n, k in [(1, 64), (5, 4096), (1027, 512), (260, 2048)]:
            x, packed = random_case(1, n, k)
            weight = torch.randn(n, k).bfloat16()
            arguments = (x, packed.values, packed.scale, packed.nan_rows)
            torch.set_num_threads(1)
            float8, bf16 = operators.linear(*arguments), operators.bf16_gemv(x, weight)
            seen = operators.read_only(weight)
            torch.set_num_threads(threads)
            for _ in range(30):
                assert torch.equal(operators.linear(*arguments), float8)
                assert torch.equal(operators.bf16_gemv(x, weight), bf16)
                assert operators.read_only(weight) == seen
    finally:
        torch.set_num_threads(before)
