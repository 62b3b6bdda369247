"""Small pretrained-looking models for tests: random weights, a real BPE tokenizer with a chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from gradatim.model.hardware import quiet

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = ["a = 3\nb = 5\nprint(a)\n# output\n# 3\n", "print(12 + 7)\n# output\n# 19\n", "system user assistant"]


def tokenizer(*, template: str | None = TEMPLATE, pad: str | None = "<|pad|>", end: str | None = "<|im_end|>") -> Any:
    """Byte-level BPE with the marks of a chat; what is None is not named."""
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=marks, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(TEXT, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=end, pad_token=pad, clean_up_tokenization_spaces=False
    )
    made.chat_template = template
    return made


def base(
    folder: Path, family: str = "llama", *, seed: int = 0, vocabulary: int = 320, context: int = 128, **named: Any
) -> Path:
    """A model folder with two layers of random weights; ``named`` goes to ``tokenizer``."""
    shape = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": context,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": 2,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any
        if family == "llama":
            model = LlamaForCausalLM(LlamaConfig(**shape))
        else:
            model = Qwen2ForCausalLM(Qwen2Config(**shape))
    with quiet():
        model.save_pretrained(folder)
    tokenizer(**named).save_pretrained(folder)
    return folder
