"""Small tokenizers with the rules of well-known families, trained on the spot."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PROGRAM = "def add(a, b):\n    if a > 0:\n        return a + b\n\n    return  b\n"
TEXT = [PROGRAM, "user question system answer 12 + 7 = 19\n", "[INST] x = 1 [/INST] y  = 2\n"] * 8
BYTES = [f"<0x{number:02X}>" for number in range(256)]

LLAMA_CHAT = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content | trim }} [/INST]"
    "{% elif m.role == 'system' %}<<SYS>>{{ m.content }}<</SYS>>\n"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ROLES = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def _bpe(special: list[str], size: int) -> tuple[Tokenizer, trainers.BpeTrainer]:
    return Tokenizer(models.BPE()), trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False)


def _wrapped(backend: Tokenizer, template: str | None, **named: Any) -> Any:
    made = PreTrainedTokenizerFast(tokenizer_object=backend, **named)
    made.chat_template = template
    return made


def _sentencepiece(special: list[str], prefix: str) -> Tokenizer:
    """``prefix``: a normalizer puts the space before a text, or ``Metaspace`` with that scheme, or nothing.

    Lines are parted by a token of a byte, as in the real ones.
    """
    backend, trainer = _bpe(special, 160)
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")  # pieces hold a space in front, if any
    backend.train_from_iterator([row for text in TEXT for row in text.splitlines()], trainer)
    backend.pre_tokenizer = None
    trimmed = [] if prefix == "no" else [decoders.Strip(" ", 1, 0)]
    if prefix in ("first", "always"):
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prefix, split=prefix == "always")
    else:
        before = [normalizers.Prepend("▁")] if prefix == "normalizer" else []
        backend.normalizer = normalizers.Sequence([*before, normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *trimmed]
    )
    rules = json.loads(backend.to_str())
    vocabulary = rules["model"]["vocab"]
    vocabulary |= {piece: len(vocabulary) + number for number, piece in enumerate(BYTES)}
    rules["model"] |= {"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"}
    return Tokenizer.from_str(json.dumps(rules))


def llama2() -> Any:
    """A normalizer prepends the space; so it does after each control token."""
    backend = _sentencepiece(["<unk>", "<s>", "</s>"], "normalizer")
    return _wrapped(backend, LLAMA_CHAT, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def codellama() -> Any:
    """``Metaspace`` prepends at the beginning of a text alone; tokens for filling in."""
    backend = _sentencepiece(["<unk>", "<s>", "</s>", "▁<PRE>", "▁<MID>"], "first")
    return _wrapped(backend, LLAMA_CHAT, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def zephyr() -> Any:
    """``Metaspace`` prepends always; a prompt ends with a control token."""
    backend = _sentencepiece(["<unk>", "<s>", "</s>", "<|user|>", "<|assistant|>"], "always")
    return _wrapped(backend, ROLES, eos_token="</s>", unk_token="<unk>", pad_token="<unk>")


def gemma() -> Any:
    """Spaces are replaced, and none is prepended."""
    backend = _sentencepiece(["<unk>", "<bos>", "<eos>", "<|im_start|>", "<|im_end|>"], "no")
    return _wrapped(backend, TURNS, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>")


def unigram() -> Any:
    """The control tokens are pieces like others, so that a text can be spelt with them."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    alphabet = sorted(set("".join(TEXT)) | set("<|im_end/s>"))
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=special, unk_token="<unk>", initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(TEXT, trainer)
    return _wrapped(backend, None, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def _bytes(special: list[str], *, prefix: bool = False) -> Tokenizer:
    backend, trainer = _bpe(special, 330)
    trainer.initial_alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(TEXT, trainer)
    return backend


def gpt2() -> Any:
    """Byte-level BPE with one control token."""
    return _wrapped(_bytes(["<|endoftext|>"]), None, eos_token="<|endoftext|>", bos_token="<|endoftext|>")


def qwen() -> Any:
    """Byte-level BPE with the marks of a chat, one of which is not called special, and markup inside texts."""
    backend = _bytes(["<|endoftext|>", "<|im_end|>"])
    backend.add_tokens(["<|im_start|>", "<think>", "</think>"])
    return _wrapped(backend, TURNS, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def roberta() -> Any:
    """Byte-level BPE that prepends a space, and leaves it there when it decodes."""
    return _wrapped(_bytes(["<s>", "</s>"], prefix=True), None, bos_token="<s>", eos_token="</s>")


def wordpiece() -> Any:
    """Marks for what goes on inside a word; white space is not kept."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=False)
    trainer = trainers.WordPieceTrainer(vocab_size=90, special_tokens=["[UNK]", "[SEP]"], show_progress=False)
    backend.train_from_iterator([*TEXT, "[ ] SEP"], trainer)
    return _wrapped(backend, None, eos_token="[SEP]", unk_token="[UNK]")


LOSSLESS: dict[str, Callable[[], Any]] = {
    made.__name__: made for made in (llama2, codellama, zephyr, gemma, unigram, gpt2, qwen, roberta)
}
"""Tokenizers that keep every character of a text; ``unigram`` those that it was trained on, without line ends."""
