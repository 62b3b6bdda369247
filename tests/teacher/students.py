"""A model folder as small as can be, for teachers in this process."""

from __future__ import annotations

from pathlib import Path


def save_tiny_model(folder: Path, texts: list[str], *, context: int = 4096, template: str | None = None) -> Path:
    """An untrained two-layer model that knows the characters of ``texts``."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from gradatim.model.tokenizer import bpe_tokenizer

    torch.manual_seed(11)
    tokenizer = bpe_tokenizer(texts, 300)
    tokenizer.chat_template = template
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=context, initializer_range=0.6,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
