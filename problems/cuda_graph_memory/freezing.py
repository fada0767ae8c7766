"""Does freezing keep weights quantised? The constants that Inductor's freezing leaves, counted.

The layers of `inductor_plan` (int8, dequantised to float32) are compiled with `freezing` on this
CPU; what the compiled module then holds, and what the model itself still holds, is summed by type.
bf16 is tried too: one pattern, int8 to bf16, is guarded against folding in Inductor's source.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from problems.cuda_graph_memory.inductor_plan import ROWS, WIDTH, Layer


class Bf16Layer(Layer):
    def forward(self, x: Tensor) -> Tensor:
        whole = self.get_buffer("weight").to(torch.bfloat16) * self.get_buffer("scale")
        return torch.nn.functional.linear(x, whole)


@dataclass(frozen=True)
class Frozen:
    """Bytes of tensors of the weights' size that are alive, by type, before and after."""

    layers: int
    compute: str
    quantised_bytes: int
    before: dict[str, int]
    after: dict[str, int]
    discarded: bool

    @property
    def new_bytes(self) -> int:
        """What compiling added."""
        return sum(self.after.values()) - sum(self.before.values())

    @property
    def times_quantised(self) -> float:
        """The int8 weights and what compiling added, over the int8 weights alone."""
        return (self.quantised_bytes + self.new_bytes) / self.quantised_bytes

    @property
    def folded(self) -> str:
        new = [f"{k} {v - self.before.get(k, 0):,}" for k, v in self.after.items()]
        return ", ".join(text for text in new if not text.endswith(" 0")) or "nothing"


def whole_weights() -> dict[str, int]:
    """Bytes of all living tensors with as many elements as a weight.

    What oneDNN packs for itself does not show as such a tensor and is not counted.
    """
    gc.collect()
    found: Counter[str] = Counter()
    seen: set[int] = set()
    for tensor in _tensors():
        try:
            if tensor.device.type != "cpu" or tensor.numel() != WIDTH * WIDTH:
                continue
            key = tensor.untyped_storage()._cdata
        except (RuntimeError, NotImplementedError, ReferenceError):
            continue
        if key not in seen:
            seen.add(key)
            name = str(tensor.dtype).removeprefix("torch.")
            found[name] += tensor.numel() * tensor.element_size()
    return dict(sorted(found.items()))


def _tensors() -> Iterator[Tensor]:
    from torch._subclasses.fake_tensor import FakeTensor

    for each in gc.get_objects():
        try:
            # By type: isinstance would ask lazy modules for their class, which then warn.
            if issubclass(type(each), Tensor) and not issubclass(type(each), FakeTensor):
                yield each
        except ReferenceError:
            continue


def freeze(layers: int, compute: str = "float32", discard: bool = False) -> Frozen:
    """Compile with freezing, run once, count. `discard`: Inductor may drop the model's own."""
    from torch._inductor import config

    torch.compiler.reset()
    kind = Layer if compute == "float32" else Bf16Layer
    model: nn.Module = nn.Sequential(*(kind(seed) for seed in range(layers))).eval()
    if compute == "bfloat16":
        for part in model.modules():
            if "scale" in part._buffers:
                part._buffers["scale"] = part.get_buffer("scale").to(torch.bfloat16)
    x = torch.randn(ROWS, WIDTH).to(torch.float32 if compute == "float32" else torch.bfloat16)
    before = whole_weights()
    patched: Any = config
    with (
        patched.patch(
            freezing=True, freezing_discard_parameters=discard, force_disable_caches=True
        ),
        torch.no_grad(),
    ):
        compiled = torch.compile(model, fullgraph=True)
        compiled(x)
        after = whole_weights()
    return Frozen(layers, compute, layers * WIDTH * WIDTH, before, after, discard)
