"""Does our mixture of experts compute what Hugging Face's do? Makes the small references.

    python tests/data/make_moe_tiny.py

Writes `moe_tiny_mixtral/`, `moe_tiny_qwen3/` and `moe_tiny_olmoe/` beside itself: a checkpoint with
random weights as transformers stores it, and `expected.json` with the logits that transformers
computes for it, and the experts that the first layer picks. Needs torch, transformers (5.23.0 was
used) and safetensors; the tests that read the result need only torch.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    MixtralConfig,
    MixtralForCausalLM,
    OlmoeConfig,
    OlmoeForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

HERE = Path(__file__).parent
# Two sequences: batch is the subject. Prompt, then teacher-forced tokens.
PROMPT = [[3, 17, 39, 4, 44, 50, 7, 31, 56, 2], [8, 45, 23, 1, 9, 57, 12, 10, 38, 5]]
FORCED = [[11, 60, 22], [33, 6, 19]]

SHAPES: dict[str, Any] = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 64,
    "max_position_embeddings": 64,
    "num_experts_per_tok": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "moe_tiny_mixtral": (
        MixtralConfig,
        MixtralForCausalLM,
        {"intermediate_size": 24, "num_local_experts": 6, "head_dim": 8},
    ),
    "moe_tiny_qwen3": (
        Qwen3MoeConfig,
        Qwen3MoeForCausalLM,
        {
            "intermediate_size": 40,
            "moe_intermediate_size": 24,
            "num_experts": 6,
            "head_dim": 16,
            "norm_topk_prob": True,
            "mlp_only_layers": [0],
        },
    ),
    "moe_tiny_olmoe": (
        OlmoeConfig,
        OlmoeForCausalLM,
        {"intermediate_size": 24, "num_experts": 6, "num_key_value_heads": 4},
    ),
}


def random_model(family: str, seed: int) -> Any:
    """Weights large enough that attention and routing are far from uniform; norms away from one."""
    config_class, model_class, options = FAMILIES[family]
    torch.manual_seed(seed)
    config = config_class(**(SHAPES | options), attn_implementation="eager")
    config._experts_implementation = "eager"
    model = model_class(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(0.0, 1.5 * parameter.shape[-1] ** -0.5)
    return model.float().eval()


@torch.no_grad()
def expected(model: Any) -> dict[str, object]:
    """Logits (batch, vocab) after the prompt and after each forced token, without a cache."""
    tokens, logits = torch.tensor(PROMPT), []
    for step in range(len(FORCED[0]) + 1):
        last = model(tokens, use_cache=False).logits[:, -1]
        logits.append([[float(value) for value in row] for row in last])
        if step < len(FORCED[0]):
            tokens = torch.cat((tokens, torch.tensor(FORCED)[:, step : step + 1]), 1)
    return {
        "made_with": {"transformers": transformers.__version__, "torch": torch.__version__},
        "prompt": PROMPT,
        "forced": FORCED,
        "logits": logits,
    }


def main() -> None:
    for seed, family in enumerate(FAMILIES):
        folder = HERE / family
        shutil.rmtree(folder, ignore_errors=True)
        model = random_model(family, seed)
        sharded = family == "moe_tiny_mixtral"
        model.save_pretrained(folder, max_shard_size="40KB" if sharded else "1GB")
        (folder / "generation_config.json").unlink(missing_ok=True)
        for file in folder.iterdir():
            file.chmod(0o644)
        text = json.dumps(expected(model), separators=(",", ":"))
        (folder / "expected.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
