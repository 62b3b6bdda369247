"""Configuration, tokenizer and weights of a model folder, opened without running code from the folder.

The only module that calls ``from_pretrained``, always with ``trust_remote_code=False``. Otherwise transformers prompts
on the terminal, and a ``y`` on standard input runs the Python files of the folder.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from ..errors import DataError
from .architecture import HEAD, PublishedGPT
from .files import check_model_file, check_model_folder, read_model_json

__all__ = ["open_config", "open_peft", "open_tokenizer_of", "open_weights"]


def open_config(name: str | Path, **options: Any) -> Any:
    """The configuration of the folder or hub model ``name``; ``options`` as for ``from_pretrained``."""
    with _safe_opening(name, options):
        return AutoConfig.from_pretrained(name, trust_remote_code=False, **options)


def open_tokenizer_of(name: str | Path, **options: Any) -> Any:
    """The tokenizer. Where the folder names a class of its own, the rules in ``tokenizer.json`` are used without it."""
    with _safe_opening(name, options):
        try:
            return AutoTokenizer.from_pretrained(name, trust_remote_code=False, **options)
        except ValueError as error:
            if "trust_remote_code" not in str(error) or not (Path(name) / "tokenizer.json").is_file():
                raise
            return PreTrainedTokenizerFast.from_pretrained(name, trust_remote_code=False, **options)


def open_weights(name: str | Path, **options: Any) -> Any:
    """The causal model in the folder or hub model ``name``. Pickled weights are restricted to tensors."""
    with _safe_opening(name, options):
        model_class = PublishedGPT if _is_published(Path(name)) else AutoModelForCausalLM
        return model_class.from_pretrained(name, trust_remote_code=False, weights_only=True, **options)


def _is_published(folder: Path) -> bool:
    try:
        settings = read_model_json(folder / "config.json") if (folder / HEAD).is_file() else {}
    except (OSError, ValueError):
        return False  # opening the folder reports the fault
    return settings.get("head_bias") is True


def open_peft(model: Any, folder: Path, *, trainable: bool) -> Any:
    """The adapter in ``folder`` on ``model``."""
    import peft

    check_model_folder(folder)
    return peft.PeftModel.from_pretrained(model, str(folder), is_trainable=trainable, local_files_only=True)


@contextlib.contextmanager
def _safe_opening(name: str | Path, options: dict[str, Any]) -> Iterator[None]:
    """Check the settings before opening; raise ``DataError`` where transformers demands ``trust_remote_code``."""
    path = Path(name)
    if "gguf_file" in options:
        check_model_file(path / str(options["gguf_file"]))
    elif path.is_dir():
        check_model_folder(path)
    else:
        _check_hub(str(name), bool(options.get("local_files_only")))
    try:
        yield
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise DataError(
            "this model needs Python code from its folder, which is never run",
            where=name,
            hint="use a model whose architecture is part of transformers",
        ) from error


def _check_hub(name: str, local: bool) -> None:
    from transformers.utils.hub import cached_file

    try:
        file = cached_file(name, "config.json", local_files_only=local)
    except Exception:  # no network, no such name: opening it reports that
        return
    if file is not None:
        check_model_folder(Path(file).parent, name)
