"""Configuration, tokenizer and weights of a model folder, opened without running anything that came with it.

The only place that calls ``from_pretrained``: each call says ``trust_remote_code=False``. Left out, transformers asks
on the terminal, and a ``y`` on standard input has the folder's Python files run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from ..errors import DataError
from .architecture import open_causal
from .files import check_model_file, check_model_folder

__all__ = ["open_config", "open_peft", "open_tokenizer_of", "open_weights"]


def open_config(name: str | Path, **how: Any) -> Any:
    """The configuration of the folder or hub model ``name``; ``how`` as for ``from_pretrained``."""
    with _refused(name, how):
        return AutoConfig.from_pretrained(name, trust_remote_code=False, **how)


def open_tokenizer_of(name: str | Path, **how: Any) -> Any:
    """Its tokenizer. Where the folder names a class of its own, the rules in ``tokenizer.json`` are used without it."""
    with _refused(name, how):
        try:
            return AutoTokenizer.from_pretrained(name, trust_remote_code=False, **how)
        except ValueError as error:
            if "trust_remote_code" not in str(error) or not (Path(name) / "tokenizer.json").is_file():
                raise
            return PreTrainedTokenizerFast.from_pretrained(name, trust_remote_code=False, **how)


def open_weights(name: str | Path, **how: Any) -> Any:
    """The causal model itself. Pickled weights are read as tensors alone."""
    with _refused(name, how):
        return open_causal(name, trust_remote_code=False, weights_only=True, **how)


def open_peft(model: Any, folder: Path, *, trainable: bool) -> Any:
    """The adapter in ``folder`` on ``model``."""
    import peft

    check_model_folder(folder)
    return peft.PeftModel.from_pretrained(model, str(folder), is_trainable=trainable, local_files_only=True)


@contextlib.contextmanager
def _refused(name: str | Path, how: dict[str, Any]) -> Iterator[None]:
    """Check the settings first, and say in one line what transformers says of code that it would have to run."""
    place = Path(name)
    if "gguf_file" in how:
        check_model_file(place / str(how["gguf_file"]))
    elif place.is_dir():
        check_model_folder(place)
    else:
        _check_hub(str(name), bool(how.get("local_files_only")))
    try:
        yield
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise DataError(
            "this model needs Python code that comes with it, which is never run",
            where=name,
            hint="a model of an architecture that transformers has",
        ) from error


def _check_hub(name: str, local: bool) -> None:
    from transformers.utils.hub import cached_file

    try:
        file = cached_file(name, "config.json", local_files_only=local)
    except Exception:  # no network, no such name: opening it says so
        return
    if file is not None:
        check_model_folder(Path(file).parent, name)
