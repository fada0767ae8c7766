"""What is one way to compute a model, as far as memory is concerned? Steps as data. No torch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from common.allocator.steps import Step

PRODUCT = "product"  # the operator of a step of no bytes that marks where a product stands


@dataclass(frozen=True)
class Forward:
    """One call: what it allocates and frees, in order; what is not freed are its outputs."""

    steps: tuple[Step, ...]
    kernels: int
    input_bytes: tuple[int, ...]

    @property
    def outputs(self) -> tuple[Hashable, ...]:
        freed = {step.name for step in self.steps if step.size is None}
        made = (step.name for step in self.steps if step.size)
        return tuple(name for name in made if name not in freed)

    @property
    def peak_bytes(self) -> int:
        """The highest level of what it asks for, nothing rounded, no workspace."""
        sizes: dict[Hashable, int] = {}
        level = highest = 0
        for step in self.steps:
            if step.size is None:
                level -= sizes.pop(step.name)
            else:
                sizes[step.name] = step.size
                level += step.size
            highest = max(highest, level)
        return highest


@dataclass(frozen=True)
class Program:
    """Everything that one kind of weights does. `compiled` is empty where nothing was lowered."""

    kind: str
    load: tuple[Step, ...]
    prefill: Forward
    eager: Mapping[int, Forward]
    compiled: Mapping[int, Forward] = field(default_factory=dict)
    largest_weight_bytes: int = 0  # of one weight in bf16: what a dequantisation makes

    def forward(self, size: int, compiled: bool) -> Forward:
        return self.compiled[size] if compiled else self.eager[size]
