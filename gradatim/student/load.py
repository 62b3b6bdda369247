"""How does a finished model folder become something that can be asked?

A student at rest is a plain Hugging Face folder: weights, configuration and tokenizer. This module opens one from
the local disk, for evaluation, for `gradatim sample` and as a base to train from. It fetches nothing from a
network and does not make new students (``presets`` does).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ..errors import DataError
from .hardware import quiet

__all__ = ["LoadedStudent", "load_student"]


@dataclass(frozen=True)
class LoadedStudent:
    """A causal model with the tokenizer it was trained with; what every suite is handed."""

    model: Any
    tokenizer: Any


def load_student(folder: str | Path, device: str | torch.device = "cpu") -> LoadedStudent:
    """The model and tokenizer in ``folder``, in evaluation mode on ``device``.

    Raises ``DataError`` when the folder is missing, is not a model folder, or its files are broken.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        state = "the folder has no config.json" if folder.is_dir() else "there is no such folder"
        raise DataError(f"not a model: {state}", where=folder, hint="the model/ folder of a finished stage")
    model: Any
    tokenizer: Any
    try:
        with quiet():
            model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    # Broken files surface as whatever the parser beneath happens to raise: json, safetensors, KeyError, ...
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        raise DataError("the model cannot be opened", where=folder, given=cause) from error
    places = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > places:
        sizes = f"{len(tokenizer)} tokens, {places} embeddings"
        raise DataError("the tokenizer has more tokens than the model", where=folder, given=sizes)
    return LoadedStudent(model.to(device).eval(), tokenizer)
