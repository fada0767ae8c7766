"""Does our Llama compute what Hugging Face's does? Makes the small reference checkpoints.

    python tests/data/make_llama_tiny.py

Writes `llama_tiny_plain/` and `llama_tiny_scaled/` beside itself: a checkpoint with random weights
as transformers stores it, and `expected.json` with the logits that transformers computes for it.
Needs torch, transformers and safetensors; the tests that read the result need only torch.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).parent
PROMPT = [3, 17, 99, 4, 64, 120, 7, 31, 56, 2, 88, 45, 23, 101, 9, 77, 12, 110, 38, 5]
DECODE_STEPS = 4

SHAPES = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_hidden_layers": 2,
    "intermediate_size": 72,
    "vocab_size": 128,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
}
PLAIN = {
    "tie_word_embeddings": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
}
# With 32 original positions, one of the eight frequencies is kept, two are blended, five divided.
SCALED = {
    "tie_word_embeddings": True,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
}


def random_model(options: dict[str, Any], seed: int) -> LlamaForCausalLM:
    """Weights large enough that attention is far from uniform; norms away from one."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**SHAPES, **options, attn_implementation="eager"))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(0.0, 2.0 * parameter.shape[1] ** -0.5)
    return model.float().eval()


@torch.no_grad()
def expected(model: LlamaForCausalLM) -> dict[str, object]:
    """Logits after the prompt and after each greedy token; every step without a cache."""
    tokens, logits = list(PROMPT), []
    for _ in range(DECODE_STEPS + 1):
        last = model(torch.tensor([tokens]), use_cache=False).logits[0, -1]
        logits.append([float(value) for value in last])
        tokens.append(int(last.argmax()))
    return {
        "made_with": {"transformers": transformers.__version__, "torch": torch.__version__},
        "prompt": PROMPT,
        "decoded": tokens[len(PROMPT) : -1],
        "logits": logits,
    }


def main() -> None:
    for name, options, seed, shard_size in (
        ("llama_tiny_plain", PLAIN, 1, "120KB"),
        ("llama_tiny_scaled", SCALED, 2, "1GB"),
    ):
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        model = random_model(options, seed)
        model.save_pretrained(folder, max_shard_size=shard_size)
        (folder / "generation_config.json").unlink(missing_ok=True)
        for file in folder.iterdir():
            file.chmod(0o644)
        text = json.dumps(expected(model), separators=(",", ":"))
        (folder / "expected.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
