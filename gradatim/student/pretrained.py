"""How does somebody else's model become a student?

A *base* is a folder in Hugging Face's layout, a model's name on the hub, or a .gguf file whose weights are dequantised.
Its tokenizer comes with it. An adapter that Gradatim trained is a base too: it is opened on its own base and merged.
Folders and files are opened from the disk alone; a name on the hub is looked for in the local cache and fetched unless
this machine is offline (``HF_HUB_OFFLINE``). No code that comes with a model is run. Nothing here trains.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from ..errors import DataError
from ..stage import Events, ignore_events
from .form import prepared
from .hardware import quiet
from .place import ALLOWED, fetch_hint, is_offline
from .published import open_causal
from .settings import ModelSettings
from .sizes import is_adapter, is_hub_name

__all__ = [
    "DTYPES",
    "begin",
    "compute_again",
    "open_base",
    "open_own_tokenizer",
    "open_tokenizer",
    "place_of",
    "reopen",
]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def begin(settings: ModelSettings, tokenizer: Any, *, seed: int) -> Any:
    """The student that ``settings.base`` is before it has learnt anything; ``seed`` draws an adapter's matrices.

    Raises ``DataError`` when the base cannot be opened, or has fewer embeddings than ``tokenizer`` has tokens.
    """
    model = open_base(str(settings.base), dtype=DTYPES[settings.dtype])
    places = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > places:
        sizes = f"{len(tokenizer)} tokens, {places} embeddings"
        raise DataError("the tokenizer has more tokens than the model", where=settings.base, given=sizes)
    # What a model is sampled with by others is not the student's any more; where its texts end is.
    ends = model.generation_config.eos_token_id
    known = {ends} if isinstance(ends, int) else set(ends or ())
    model.generation_config = GenerationConfig(
        bos_token_id=model.generation_config.bos_token_id, eos_token_id=sorted(known | {tokenizer.eos_token_id})
    )
    if settings.lora is None:
        return model
    from .lora import attach

    return attach(model, place_of(str(settings.base)), settings.lora, seed=seed)


def reopen(folder: Path, settings: ModelSettings) -> Any:
    """The student that a stage left in ``folder``, ready to be trained further."""
    dtype = DTYPES[settings.dtype]
    if is_adapter(folder):
        from .lora import open_adapter

        return open_adapter(folder, dtype=dtype, trainable=True)
    with quiet():
        return open_causal(folder, dtype=dtype, local_files_only=True)


def compute_again(model: Any) -> None:
    """Gradient checkpointing: keep one activation a layer, and compute the others again where a gradient needs them."""
    how = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(how)
    else:  # an older name of the same
        model.gradient_checkpointing_enable(how)


def open_base(base: str, *, dtype: torch.dtype, where: str = "student.base") -> Any:
    """The causal model ``base``, its weights in ``dtype``, on the CPU. ``DataError`` says why it cannot be opened.

    ``where`` is what errors call it.
    """
    _check_there(base, where)
    if is_adapter(base):
        from .lora import open_adapter

        return open_adapter(base, dtype=dtype).merge_and_unload()
    with _told(base, "the model cannot be opened", where), quiet():
        model: Any = AutoModelForCausalLM.from_pretrained(**_arguments(base), dtype=dtype)
    if base.endswith(".gguf"):
        # The loader marks what it dequantised as quantised, and such a model cannot be saved.
        model.hf_quantizer, model.is_quantized = None, False
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
    return model.to(dtype)


def open_tokenizer(model: ModelSettings, events: Events = ignore_events) -> Any:
    """The tokenizer of ``model.base``, ready to teach with; see ``form.prepared``. ``DataError`` when it has none."""
    base = str(model.base)
    # An adapter folder has a tokenizer of its own, the one it was trained with, and its base's configuration.
    tokenizer = open_own_tokenizer(base)
    with _told(base, "the base's configuration cannot be opened"), quiet():
        config = AutoConfig.from_pretrained(**_arguments(base))
    places = getattr(config, "max_position_embeddings", None)
    if places is not None and places < model.context:
        raise DataError(
            "the base's context is shorter than the student's",
            where="student.context",
            given=f"{model.context}; {base} has {places}",
            hint=f"student.context: {places}, and train.length no longer",
        )
    return prepared(tokenizer, model.template, model.system, config, base, events)


def open_own_tokenizer(base: str, where: str = "student.base") -> Any:
    """The tokenizer of ``base`` as it came. ``DataError`` when it has none."""
    _check_there(base, where)
    _check_tokenizer(base, where)
    with _told(base, "the base's tokenizer cannot be opened", where), quiet():
        return AutoTokenizer.from_pretrained(**_arguments(base))


def place_of(base: str) -> str:
    """``base`` as an adapter names it: a hub's name as it is, a folder or file by its absolute path."""
    return str(Path(base).resolve()) if Path(base).exists() else base


def _arguments(base: str) -> dict[str, Any]:
    if base.endswith(".gguf"):
        file = Path(base)
        return {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name, "local_files_only": True}
    return {"pretrained_model_name_or_path": base, "local_files_only": Path(base).exists() or is_offline()}


def _check_there(base: str, where: str) -> None:
    path = Path(base)
    if base.endswith(".gguf"):
        if not path.is_file():
            raise DataError("there is no such file", where=where, given=base)
        try:
            import gguf  # noqa: F401
        except ImportError as error:
            hint = "pip install 'gradatim[gguf]'"
            raise DataError("GGUF files are read by the package 'gguf'", where=where, hint=hint) from error
        with open(path, "rb") as file:
            start = file.read(4)
        if start != b"GGUF":
            raise DataError("this is no GGUF file", where=where, given=base)
    elif path.is_dir():
        if not (path / "config.json").is_file():
            raise DataError("not a model: the folder has no config.json", where=where, given=base)
    elif not is_hub_name(base):
        raise DataError("there is no such model", where=where, given=base, allowed=ALLOWED)


_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def _check_tokenizer(base: str, where: str) -> None:
    folder = Path(base)
    if folder.is_dir() and not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise DataError(
            "the model folder has no tokenizer",
            where=where,
            given=base,
            allowed=f"one of {', '.join(_TOKENIZER_FILES)}",
            hint=f"tokenizer.save_pretrained({str(folder)!r})",
        )


@contextlib.contextmanager
def _told(base: str, what: str, where: str = "student.base") -> Iterator[None]:
    """Whatever is raised inside, as one line that says what to do."""
    try:
        yield
    except DataError:
        raise
    # Broken files surface as whatever the parser beneath happens to raise.
    except Exception as error:
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        hint = None
        if not Path(base).exists():
            what = "this model is not in the local cache and cannot be fetched"
            hint = f"{fetch_hint(base)}, or give its folder"
        raise DataError(what, where=f"{where}: {base}", given=cause, hint=hint) from error
