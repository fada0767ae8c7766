"""Names of one kernel in other builds, shapes and vendors meet; names of two kernels do not."""

from __future__ import annotations

import pytest

from common.diff.names import family, normalised

ADD = (
    "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>, "
    "std::array<char*, 3ul> >(int, at::native::CUDAFunctor_add<float>, std::array<char*, 3ul>)"
)
MULTIPLY = (
    "void at::native::vectorized_elementwise_kernel<4, at::native::BinaryFunctor<float, float, "
    "float, at::native::binary_internal::MulFunctor<float> >, at::detail::Array<char*, 3> >(int)"
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ADD, ADD.replace("<4,", "<8,").replace("float", "c10::BFloat16")),
        ("triton_poi_fused_add_mul_3", "triton_poi_fused_add_mul_17"),
        ("ampere_sgemm_128x64_nn", "ampere_sgemm_32x32_nn"),
        ("sm80_xmma_gemm_f16f16_f16f32_f32_tn", "sm90_xmma_gemm_f16f16_f16f32_f32_tn"),
        ("void f<int>(int*)", "void f<long>(long*)"),
        ("void (anonymous namespace)::f<3>(int)", "void f<4>(int)"),
        ("kernel_0x7f12ab", "kernel_0x55ffcd"),
        ("fused_cafe0123deadbeef", "fused_0123456789abcdef"),
        ("attn_fwd.kd", "attn_fwd"),
        ("Memcpy HtoD (Pageable -> Device)", "Memcpy HtoD (Pinned -> Device)"),
        ("Memcpy HtoD (Pageable -> Device)", "Memcpy Host-to-Device"),
        ("[CUDA memcpy Device-to-Host]", "Memcpy DtoH (Device -> Host)"),
        ("Memset (Device)", "Memset"),
    ],
)
def test_variants_of_one_kernel_have_one_normalised_name(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ADD, MULTIPLY),
        (ADD, ADD.replace("vectorized_elementwise_kernel", "reduce_kernel")),
        ("triton_poi_fused_add_3", "triton_poi_fused_mul_3"),
        ("Memcpy HtoD (Pageable -> Device)", "Memcpy DtoH (Device -> Pageable)"),
        ("Memcpy DtoD (Device -> Device)", "Memset (Device)"),
    ],
)
def test_two_kernels_keep_two_normalised_names(one: str, other: str) -> None:
    assert normalised(one) != normalised(other)


@pytest.mark.parametrize(
    ("word", "names"),
    [
        (
            "gemm",
            (
                "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_kernel__5x_cublas",
                "Cijk_Alik_Bljk_BBS_BH_Bias_HA_S_SAV_UserArgs_MT256x128x64_MI16x16x1",
                "nvjet_hsh_128x64_64x11_1x2_h_bz_TNT",
                "void cutlass::Kernel2<cutlass_80_wmma_tensorop_s161616gemm_f16_32x32_nn_align8>",
                "void gemmSN_NN_kernel<float, 128, 2, 4, 8>(float)",
            ),
        ),
        (
            "attention",
            (
                "attn_fwd",
                "void pytorch_flash::flash_fwd_kernel<pytorch_flash::Flash_fwd_kernel_traits<64>>",
                "fmha_cutlassF_bf16_aligned_64x64_rf_sm80",
            ),
        ),
        ("collective", ("ncclKernel_AllReduce_RING_LL_Sum_float(ncclWorkElem)",)),
        ("MulFunctor", (MULTIPLY,)),
        ("CUDAFunctor_add", (ADD, ADD.replace("vectorized_elementwise", "elementwise"))),
    ],
)
def test_families(word: str, names: tuple[str, ...]) -> None:
    assert {family(name) for name in names} == {word}


@pytest.mark.parametrize(
    "name", ["", " ", "<", ">", "void", "<<<", "a<b", "(", "0x", "\x00", "é<λ>"]
)
def test_odd_names_keep_some_name(name: str) -> None:
    assert normalised(name) or not name
    assert isinstance(family(name), str)
