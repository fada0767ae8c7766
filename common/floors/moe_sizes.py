"""How many parameters has a DeepSpeed-MoE model, and what does its layer cost to reach?

The models of DeepSpeed-MoE (Rajbhandari et al., arXiv 2201.05596): every other layer's MLP (width
4 h, two matrices, no gate) is replaced by experts; PR-MoE adds one fixed MLP beside the experts of
each such layer and gives the last ones more experts; MoS drops layers. Embeddings, norms and
biases are left out, as the published sizes do.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import UsageError


@dataclass(frozen=True)
class DeepSpeedMoe:
    """`experts` holds the expert count of each layer that has experts, first to last.

    An empty tuple with `layers` is the part that every token uses: the model without its experts.
    The layers that have none carry a plain MLP.
    """

    layers: int
    hidden: int
    experts: tuple[int, ...]
    residual: bool = False

    def __post_init__(self) -> None:
        if self.layers < 1 or self.hidden < 1 or len(self.experts) > self.layers // 2:
            raise UsageError(
                f"{len(self.experts)} layers with experts of {self.layers}: every other layer at "
                "most; give fewer"
            )
        if self.experts and min(self.experts) < 1:
            raise UsageError("a layer has no expert; give 1 or more, or leave the layer out")

    @property
    def mlp_parameters(self) -> int:
        """Two matrices, h × 4 h."""
        return 8 * self.hidden**2

    @property
    def attention_parameters(self) -> int:
        return 4 * self.layers * self.hidden**2

    @property
    def expert_parameters(self) -> int:
        return sum(self.experts) * self.mlp_parameters

    @property
    def residual_parameters(self) -> int:
        """Per expert layer a fixed MLP, and the two-way coefficient that weighs it (2 h + 2)."""
        each = self.mlp_parameters + 2 * self.hidden + 2 if self.residual else 0
        return len(self.experts) * each

    @property
    def router_parameters(self) -> int:
        return sum(self.experts) * self.hidden

    @property
    def shared_parameters(self) -> int:
        """What every token uses: attention, plain MLPs, residual MLPs (routers not counted)."""
        with_experts = len(self.experts) or self.layers // 2
        plain = (self.layers - with_experts) * self.mlp_parameters
        return self.attention_parameters + plain + self.residual_parameters

    @property
    def parameters(self) -> int:
        return self.shared_parameters + self.expert_parameters

    def parameters_used_per_token(self, top_k: int = 1) -> int:
        """What one token must read: the shared part and k experts of each expert layer."""
        return self.shared_parameters + top_k * len(self.experts) * self.mlp_parameters


def printed_billions(parameters: int, printed: str) -> str:
    """The count in 10^9, with as many decimals as the published figure."""
    decimals = len(printed.partition(".")[2])
    return f"{parameters / 1e9:.{decimals}f}"
