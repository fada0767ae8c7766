"""When do two kernel names mean the same kernel? Normalised names and families.

    void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>, ...
        normalised: vectorized_elementwise_kernel<CUDAFunctor_add>       family: CUDAFunctor_add
    sm90_xmma_gemm_bf16bf16_..., Cijk_Alik_Bljk_BBS_BH_...               family: gemm

A normalised name drops what differs between builds, shapes and runs (types, numbers, hashes,
addresses) and keeps the function and the functors it was made with: an addition is never taken for
a product. A family says what kind of work it is; it only helps where order and place agree too.
"""

from __future__ import annotations

import re
from functools import lru_cache

# Types, containers and helpers of template arguments: they tell variants of one kernel apart.
_NOISE_WORDS = """
    void float double half bool char int long short unsigned signed size_t const true false auto
    int8_t int16_t int32_t int64_t uint8_t uint16_t uint32_t uint64_t nv_bfloat16 BFloat16 Half
    Float8_e4m3fn Float8_e5m2 complex array Array tuple pair std c10 at cuda native detail
    anonymous namespace operator instance lambda type enable_if TensorInfo OpaqueType
    OffsetCalculator TrivialOffsetCalculator LoadWithoutCast StoreWithoutCast LoadWithCast
    StoreWithCast hip thrust unnamed TensorIteratorBase TensorIterator Tensor memory integral
    constant integral_constant template typename static_cast Scalar TensorIterator ArrayRef
    GeluType OpType binary_internal
"""
_NOISE = frozenset(_NOISE_WORDS.split())
_LAUNCHERS_WORDS = """
    vectorized_elementwise_kernel unrolled_elementwise_kernel elementwise_kernel
    elementwise_kernel_manual_unroll vectorized_templated_elementwise_kernel
    unrolled_elementwise_kernel_for_multi_outputs reduce_kernel index_elementwise_kernel
    multi_tensor_apply_kernel gpu_kernel_impl gpu_kernel_impl_nocast legacy_elementwise_kernel
    compute_num_threads kernelPointwiseApply1 kernelPointwiseApply2 vectorized_gather_kernel
    _elemwise_kernel kernel Kernel DeviceScanKernel
"""
_LAUNCHERS = frozenset(_LAUNCHERS_WORDS.split())
# Words, asked for one by one: cheaper than an expression for each family.
_FAMILIES = (
    ("transpose", ("transpose", "nchwtonhwc", "nhwctonchw", "nchw2nhwc")),
    ("collective", (
        "nccl", "rccl", "allreduce", "all_reduce", "allgather", "all_gather", "reduce_scatter",
    )),
    ("attention", ("flash", "fmha", "attn", "attention", "sdpa")),
    ("convolution", ("winograd", "implicit_gemm", "dgrad", "wgrad", "fprop")),
    ("gemm", (
        "gemm", "gemv", "cijk_", "nvjet", "matmul", "wmma", "xmma", "splitk", "dot_kernel", "_mm_",
    )),
    ("batch norm", ("batch_norm", "batchnorm", "bn_fw", "bn_bw")),
    ("layer norm", (
        "layer_norm", "layernorm", "rms_norm", "rmsnorm", "rsqrt_mean", "vectorized_layer",
    )),
    ("softmax", ("softmax",)),
    ("cross entropy", ("nll_loss", "cross_entropy")),
    ("embedding", ("embedding",)),
    ("concatenate", ("catarray", "cat_kernel")),
    ("dropout", ("dropout",)),
    ("top k", ("top_k", "topk", "radix_sort", "radixsort", "bitonic", "sort_")),
    ("scan", ("scan", "cumsum")),
    ("copy", ("copy_kernel",)),
)  # fmt: skip
_CONVOLUTION = re.compile(r"conv(?!ert)|[a-z]\d*cudnn_")
_WORD = re.compile(r"[A-Za-z_]\w*")
_HEX = re.compile(r"0x[0-9a-fA-F]+|(?<![A-Za-z])[0-9a-f]{8,}(?![A-Za-z])")
_EIGHT = b"0" * 8
_HEX_DIGITS = bytes.maketrans(b"123456789abcdef", b"0" * 15)
_SUFFIX = re.compile(r"(?:\s*\[clone [^\]]*\])+$|\.kd$")
_DIGITS = re.compile(r"\d+")
_BRACKET = re.compile(r"[<>(]")
_COPY = re.compile(r"^(?:\[CUDA )?(mem(?:cpy|set))\s*(?:\()?\s*(\w+)?", re.IGNORECASE)
_COPY_WORDS = (
    ("htod", "HtoD"), ("host-to-device", "HtoD"), ("hosttodevice", "HtoD"),
    ("dtoh", "DtoH"), ("device-to-host", "DtoH"), ("devicetohost", "DtoH"),
    ("dtod", "DtoD"), ("device-to-device", "DtoD"), ("devicetodevice", "DtoD"),
    ("ptop", "PtoP"), ("peer-to-peer", "PtoP"), ("htoh", "HtoH"), ("host-to-host", "HtoH"),
)  # fmt: skip


@lru_cache(maxsize=1 << 16)
def normalised(name: str) -> str:
    """The name without types, numbers, hashes, addresses and parameters; never empty."""
    if name[:7].lower() in ("memcpy ", "memset ", "[cuda m", "memcpy", "memset"):
        return _copy(name)
    function, arguments = _parts(name)
    kept = _DIGITS.sub("#", function)
    functors = _functors(arguments)
    return f"{kept}<{', '.join(functors)}>" if functors else kept or name


@lru_cache(maxsize=1 << 16)
def family(name: str) -> str:
    """What kind of work the kernel does: one of a few words, or its functor, or its own name."""
    if name[:6].lower() in ("memcpy", "memset", "[cuda "):
        return _copy(name)
    low = name.lower()
    for label, words in _FAMILIES:
        for word in words:
            if word in low:
                return label
        maybe = label == "convolution" and ("conv" in low or "cudnn_" in low)
        if maybe and _CONVOLUTION.search(low):
            return label
    function, arguments = _parts(name)
    if function in _LAUNCHERS:
        functors = _functors(arguments)
        if functors:
            return functors[-1]  # the first ones only carry it: BinaryFunctor, ReduceOp
    return _DIGITS.sub("#", function) or name


def _copy(name: str) -> str:
    """`Memcpy HtoD (Pageable -> Device)` of torch and `[CUDA memcpy Host-to-Device]` of nsys."""
    found = _COPY.match(name)
    if not found:
        return name
    low = name.lower()
    way = next((label for word, label in _COPY_WORDS if word in low), "")
    return f"{found[1].capitalize()} {way}".strip()


@lru_cache(maxsize=1 << 10)  # both questions are asked of one name soon after each other
def _parts(name: str) -> tuple[str, str]:
    """(the function's own name, everything between its template brackets), without hashes."""
    text = name.strip()
    if text.endswith(("]", ".kd")):
        text = _SUFFIX.sub("", text)
    # Almost no name has eight such digits in a row, and to look for them that way costs a ninth.
    if "0x" in text or _EIGHT in text.encode("ascii", "replace").translate(_HEX_DIGITS):
        text = _HEX.sub("#", text)
    text = text.replace("(anonymous namespace)::", "").replace("<unnamed>::", "")
    text = text.removeprefix("void ")
    depth, begin, name_end = 0, -1, len(text)
    arguments = ""
    for bracket in _BRACKET.finditer(text):
        i, char = bracket.start(), bracket[0]
        if char == "<":
            if depth == 0 and begin < 0:
                begin, name_end = i, min(name_end, i)
            depth += 1
        elif char == ">":
            if depth and text[i - 1] != "-":
                depth -= 1
                if depth == 0:
                    arguments = text[begin + 1 : i]
                    break
        elif depth == 0:
            name_end = min(name_end, i)
            break
    else:
        if begin >= 0:  # cut off in the middle of its arguments
            arguments = text[begin + 1 :]
    return text[:name_end].strip().rsplit("::", 1)[-1].rsplit(" ", 1)[-1], arguments


def _functors(arguments: str) -> list[str]:
    """Identifiers of the template arguments that say what is computed, in order, each once."""
    found: dict[str, None] = {}
    for word in _WORD.findall(arguments):
        if word not in _NOISE and word not in _LAUNCHERS and len(word) > 2:
            found.setdefault(_DIGITS.sub("#", word))
    return list(found)[:4]
