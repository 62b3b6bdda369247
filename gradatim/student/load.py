"""How does a finished model folder become something that can be asked?

A student at rest is a plain Hugging Face folder: weights, configuration and tokenizer; or an adapter that names its
base, which is then opened too, and the two are merged: what is examined is what `gradatim export --merge` writes.
``load_student`` opens one from the local disk, for evaluation and for `gradatim sample`, and fetches nothing from a
network; ``load_model`` opens whatever a student may begin from, for those who ask it something before that. New
students are made elsewhere (``presets`` and ``pretrained``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer

from ..errors import DataError
from .hardware import keep_memory, quiet
from .place import held
from .published import open_causal
from .sizes import is_adapter

__all__ = ["LoadedStudent", "load_model", "load_student"]


@dataclass(frozen=True)
class LoadedStudent:
    """A causal model with the tokenizer it was trained with; what every suite is handed."""

    model: Any
    tokenizer: Any


def load_student(folder: str | Path, device: str | torch.device = "cpu") -> LoadedStudent:
    """The model and tokenizer in ``folder``, in evaluation mode on ``device``.

    On a processor weights are computed with in 32 bits: in bf16 tokens are often equally likely, and which of them is
    taken would hang on what else is in the batch. Raises ``DataError`` when the folder is missing, is not a model
    folder, or its files are broken.
    """
    keep_memory()
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        state = "the folder has no config.json" if folder.is_dir() else "there is no such folder"
        raise DataError(f"not a model: {state}", where=folder, hint="the model/ folder of a finished stage")
    model: Any
    tokenizer: Any
    try:
        with quiet():
            model = _opened(folder, torch.device(device))
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except DataError:
        raise
    # Broken files surface as whatever the parser beneath happens to raise: json, safetensors, KeyError, ...
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        raise DataError("the model cannot be opened", where=folder, given=cause) from error
    return _ready(model, tokenizer, folder, device)


def load_model(name: str, device: str | torch.device = "cpu") -> LoadedStudent:
    """The model that ``name`` means, as ``load_student`` gives it: a folder, a .gguf file or a name on the hub.

    A name on the hub is fetched when it is not in the local cache. Raises ``DataError`` as ``load_student`` does.
    """
    place = held(name)
    if place.is_dir():
        return load_student(place, device)
    from .pretrained import open_base, open_own_tokenizer

    tokenizer = open_own_tokenizer(str(place), "model")
    return _ready(open_base(str(place), dtype=torch.float32, where="model"), tokenizer, place, device)


def _ready(model: Any, tokenizer: Any, place: Path, device: str | torch.device) -> LoadedStudent:
    places = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > places:
        sizes = f"{len(tokenizer)} tokens, {places} embeddings"
        raise DataError("the tokenizer has more tokens than the model", where=place, given=sizes)
    return LoadedStudent(model.to(device).eval(), tokenizer)


def _opened(folder: Path, device: torch.device) -> Any:
    dtype: Any = torch.float32 if device.type == "cpu" else "auto"
    if not is_adapter(folder):
        return open_causal(folder, dtype=dtype, local_files_only=True)
    from .lora import open_adapter

    if dtype == "auto":
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        dtype = getattr(config, "dtype", None) or torch.float32
    return open_adapter(folder, dtype=dtype).merge_and_unload()
