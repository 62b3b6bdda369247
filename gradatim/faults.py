"""Faults of values in plain words, and numbers and keys in the notations of other tools.

pydantic checks the values; its messages name its own classes and Python's types. ``fault_text`` states what a value
must be in the words of YAML. ``with_numbers`` converts texts such as ``1e6``, ``1M`` and ``10_000``, which YAML leaves
as texts, where a number is needed.

``SYNONYMS`` maps the names of keys in transformers, TRL and peft to the keys of a recipe.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

_NUMBER = re.compile(r"([+-]?(?:\d[\d_]*(?:\.[\d_]*)?|\.\d[\d_]*)(?:[eE][+-]?\d{1,3})?)([kKMGB]?)")
_LONGEST = 40
"""Characters of a number."""
_SUFFIXES = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9}


def number(text: str) -> int | float | None:
    """The number in ``text``: 1e6, 1.5M, 10_000, 200k; an integer where it is whole, None for any other text."""
    match = _NUMBER.fullmatch(text.strip()) if len(text) <= _LONGEST else None
    if match is None:
        return None
    digits, suffix = match[1].replace("_", ""), match[2]
    whole = re.fullmatch(r"[+-]?\d+", digits)
    value: int | float = (int(digits) if whole else float(digits)) * _SUFFIXES[suffix]
    if abs(value) >= 1 << 63:
        return None
    return int(value) if float(value).is_integer() else value


_NUMBER_FAULTS = ("int_parsing", "int_from_float", "int_type", "float_parsing", "float_type")


def with_numbers(content: Any, errors: Sequence[Mapping[str, Any]]) -> Any | None:
    """A copy of ``content`` with numbers in place of the texts that are faulty as numbers; None without any."""
    copied, changed = copy.deepcopy(content), False
    for error in errors:
        if error["type"] not in _NUMBER_FAULTS or not isinstance(error["input"], str):
            continue
        value = number(error["input"])
        if value is not None and _replace(copied, error["loc"], error["input"], value):
            changed = True
    return copied if changed else None


def _replace(content: Any, location: Sequence[Any], old: str, new: int | float) -> bool:
    """Replace the value at ``location``, which may name branches of a union after the keys."""
    for part in location:
        try:
            value = content[part]
        except (KeyError, IndexError, TypeError):
            return False
        if isinstance(value, str):
            if value == old and isinstance(content, dict | list):
                content[part] = new
                return True
            return False
        content = value
    return False


_TEXTS = {
    "model_type": "must be a mapping of keys",
    "model_attributes_type": "must be a mapping of keys",
    "dataclass_type": "must be a mapping of keys",
    "dict_type": "must be a mapping of keys",
    "mapping_type": "must be a mapping of keys",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "set_type": "must be a list",
    "iterable_type": "must be a list",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be a text",
    "string_pattern_mismatch": "is not of the form {pattern}",
    "none_required": "must be null",
    "missing": "is missing",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must have at least {min_length} values",
    "too_long": "must have at most {max_length} values",
}
"""{type of a pydantic error: its text, with fields of the error's context}."""


def fault_text(error: Mapping[str, Any]) -> str:
    """The fault of one entry of ``ValidationError.errors()``, without the library's words."""
    text = _TEXTS.get(error["type"])
    if text is not None:
        return text.format_map(error.get("ctx", {}))
    message = str(error["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
    return message[:1].lower() + message[1:]


SYNONYMS: Mapping[str, str] = {
    **dict.fromkeys(
        ("batch_size", "per_device_train_batch_size", "train_batch_size", "micro_batch_size"), "train.batch_size"
    ),
    **dict.fromkeys(("lr", "learning_rate", "max_lr"), "train.optimizer.learning_rate"),
    **dict.fromkeys(("epochs", "epoch", "num_train_epochs", "num_epochs"), "budget.epochs"),
    **dict.fromkeys(("steps", "max_steps", "num_steps", "train_steps", "total_steps"), "budget.steps"),
    **dict.fromkeys(("tokens", "max_tokens", "num_tokens", "train_tokens"), "budget.tokens"),
    **dict.fromkeys(
        ("max_length", "max_seq_length", "max_seq_len", "seq_length", "seq_len", "sequence_length", "block_size"),
        "train.max_length",
    ),
    **dict.fromkeys(("context_length", "context_window", "max_position_embeddings"), "student.context_length"),
    **dict.fromkeys(("warmup", "warmup_steps", "warmup_ratio", "num_warmup_steps"), "train.lr_scheduler.warmup_ratio"),
    **dict.fromkeys(("lr_scheduler_type", "scheduler", "lr_schedule"), "train.lr_scheduler.name"),
    **dict.fromkeys(("optim", "optimizer"), "train.optimizer.name"),
    "weight_decay": "train.optimizer.weight_decay",
    **dict.fromkeys(
        ("gradient_accumulation", "gradient_accumulation_steps", "grad_accum", "accumulation_steps"),
        "train.gradient_accumulation_steps",
    ),
    **dict.fromkeys(("max_grad_norm", "grad_clip", "gradient_clipping", "clip_grad_norm"), "train.max_grad_norm"),
    **dict.fromkeys(("bf16", "fp16", "mixed_precision", "precision"), "train.precision"),
    **dict.fromkeys(("packing", "batching"), "train.batching"),
    **dict.fromkeys(("model", "model_name", "model_name_or_path", "base_model", "base"), "student.base"),
    **dict.fromkeys(("lora_r", "lora_rank", "r"), "student.lora.rank"),
    "lora_alpha": "student.lora.alpha",
    "lora_dropout": "student.lora.dropout",
    **dict.fromkeys(("target_modules", "lora_target_modules"), "student.lora.targets"),
    **dict.fromkeys(("dataset", "dataset_name", "dataset_path", "data_path", "train_file", "data_files"), "data.path"),
    "test_size": "data.split.test",
    **dict.fromkeys(("val_size", "validation_size", "eval_size"), "data.split.validation"),
    "eval_on_start": "evaluate.on_start",
    "eval_steps": "train.evaluations_per_stage",
    "save_steps": "train.checkpoint_seconds",
    "seeds": "seed",
}
"""{a key of another tool, or of another section: the key of a recipe}."""
