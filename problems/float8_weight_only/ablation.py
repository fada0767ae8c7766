"""Which of the two commits behind 0.14.1 does what? Each applied alone to torchao 0.13.0.

"2950": the scale of a row is left as it is where it broadcasts, instead of being expanded to the
weight's size. "2961": dequantise is a plain function that the compiler sees into, instead of an
opaque operator; its body is the operator's, with the same locals, so that memory is comparable.

Compiled graphs are cached by what they compute, not by what was patched: run these variants with
TORCHINDUCTOR_FORCE_DISABLE_CACHES=1, as problem.toml does, or a stale graph may be measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def apply(patches: Iterable[str]) -> None:
    """Patch the imported torchao 0.13.0 in this process. ValueError for an unknown name."""
    from torchao.quantization import quant_primitives
    from torchao.quantization.quantize_.workflows.float8 import float8_tensor

    primitives: Any = quant_primitives
    expand = primitives._expand_scale_to_tensor_shape

    def leave_what_broadcasts(scale: Tensor, shape: torch.Size) -> Tensor:
        if all(a in (1, b) for a, b in zip(scale.shape, shape, strict=True)):
            return scale
        expanded: Tensor = expand(scale, shape)
        return expanded

    def plain(tensor: Tensor, scale: Tensor, output_dtype: torch.dtype = torch.float32) -> Tensor:
        as_float = tensor.to(torch.float32)
        expanded = primitives._expand_scale_to_tensor_shape(scale, tensor.shape)
        product: Tensor = as_float * expanded
        return product.to(output_dtype)

    for patch in patches:
        if patch == "2950":
            primitives._expand_scale_to_tensor_shape = leave_what_broadcasts
        elif patch == "2961":
            float8_tensor._dequantize_affine_float8 = plain
        else:
            raise ValueError(f"unknown patch {patch!r}; use 2950 or 2961")
