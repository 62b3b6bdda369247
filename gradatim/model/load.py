"""How does somebody else's model become a student?

A *base* is a folder in Hugging Face's layout, a model's name on the hub, or a .gguf file whose weights are dequantised.
Its tokenizer comes with it. An adapter that Gradatim trained is a base too: it is opened on its own base and merged.
Folders and files are opened from the disk alone; a name on the hub is looked for in the local cache and fetched unless
this machine is offline (``HF_HUB_OFFLINE``). No code that comes with a model is run. Nothing here trains.

How does a student learn with few numbers of its own?

Low-rank adaptation (arXiv 2106.09685) by the package ``peft``: the base stands still, and beside some of its layers a
product of two thin matrices is learnt. What is kept of such a student, at rest and in checkpoints, is the adapter
alone. Its folder is a ``peft`` adapter that names its base, with the base's configuration and tokenizer beside it, and
``base.json``: a fingerprint of the base's weights, so that an adapter is never put on another model unnoticed.

How does a finished model folder become something that can be asked?

A student at rest is a plain Hugging Face folder: weights, configuration and tokenizer; or an adapter that names its
base, which is then opened too, and the two are merged: what is examined is what `gradatim export --merge` writes.
``load_student`` opens one from the local disk, for evaluation and for `gradatim sample`, and fetches nothing from a
network; ``load_model`` opens whatever a student may begin from, for those who ask it something before that. New
students are made elsewhere (``presets`` and ``pretrained``).
"""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.pytorch_utils import Conv1D

from ..errors import DataError, RunFolderError, did_you_mean
from ..record import read_json, write_json
from ..stage import Events, ignore_events
from .hardware import keep_memory, quiet
from .hub import ALLOWED, base_below, check_chain, fetch_hint, held, is_adapter, is_hub_name, is_offline
from .opening import open_config, open_peft, open_tokenizer_of, open_weights
from .prompt_format import prepared
from .settings import LoraSettings, ModelSettings

__all__ = [
    "DTYPES",
    "LoadedStudent",
    "adapter_names",
    "attach",
    "begin",
    "check_base",
    "compute_again",
    "fingerprint",
    "load_model",
    "load_student",
    "open_adapter",
    "open_base",
    "open_own_tokenizer",
    "open_tokenizer",
    "place_of",
    "reopen",
    "save_adapter",
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

    return attach(model, place_of(str(settings.base)), settings.lora, seed=seed)


def reopen(folder: Path, settings: ModelSettings) -> Any:
    """The student that a stage left in ``folder``, ready to be trained further."""
    dtype = DTYPES[settings.dtype]
    if is_adapter(folder):
        return open_adapter(folder, dtype=dtype, trainable=True)
    with quiet():
        return open_weights(folder, dtype=dtype, local_files_only=True)


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
        return open_adapter(base, dtype=dtype).merge_and_unload()
    with _told(base, "the model cannot be opened", where), quiet():
        model: Any = open_weights(**_arguments(base), dtype=dtype)
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
        config = open_config(**_arguments(base))
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
        return open_tokenizer_of(**_arguments(base))


def place_of(base: str) -> str:
    """``base`` as an adapter names it: a hub's name as it is, a folder or file by its absolute path."""
    return str(Path(base).resolve()) if Path(base).exists() else base


def _arguments(base: str) -> dict[str, Any]:
    if base.endswith(".gguf"):
        file = Path(base)
        return {"name": str(file.parent), "gguf_file": file.name, "local_files_only": True}
    return {"name": base, "local_files_only": Path(base).exists() or is_offline()}


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


BASE = "base.json"
_SAMPLED = 1024
"""Numbers of each tensor that a fingerprint looks at: every fine-tuning moves nearly all of them."""


def attach(model: Any, base: str, lora: LoraSettings, *, seed: int) -> Any:
    """``model`` with a fresh adapter, which changes nothing yet; its matrices are drawn from ``seed``.

    ``base`` is how the adapter names its model. ``DataError`` when a target matches no layer, or ``peft`` is missing.
    """
    peft = _peft()
    targets: Any = "all-linear" if lora.targets == ("all-linear",) else list(lora.targets)
    if targets != "all-linear":
        _check_targets(model, lora.targets)
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    with _without_a_word(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = peft.get_peft_model(model, config)
    # Only now: peft writes the model's own idea of where it came from, and warns when it was told another.
    config.base_model_name_or_path = base
    return made


def open_adapter(folder: str | Path, *, dtype: torch.dtype, trainable: bool = False) -> Any:
    """The adapter in ``folder`` on its base, whose weights are in ``dtype``.

    ``DataError`` when the base is not there or is another one, and when the adapter is damaged.
    """

    folder = Path(folder)
    _peft()
    check_chain(folder)
    base = base_below(folder)
    model = open_base(base, dtype=dtype, where=f"the base of {folder}")
    said = read_json(folder / BASE, dict).get("fingerprint") if (folder / BASE).is_file() else None
    if said is not None and said != fingerprint(model):
        raise DataError(
            "the base is not the one that this adapter was trained on", where=folder, given=base,
            hint="put back the model as it was, or train the adapter anew",
        )  # fmt: skip
    try:
        with _without_a_word():
            made = open_peft(model, folder, trainable=trainable)
    except DataError:
        raise
    # Broken files surface as whatever the parser beneath happens to raise.
    except Exception as error:
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise DataError("the adapter cannot be opened", where=folder, given=cause) from error
    return made


def save_adapter(model: Any, folder: Path) -> None:
    """Write the adapter of ``model``, its base's configuration and fingerprint into ``folder``."""
    with _without_a_word():
        model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # a form with nothing filled in
    model.config.save_pretrained(folder)
    config = model.peft_config[model.active_adapter]
    write_json(folder / BASE, {"base": config.base_model_name_or_path, "fingerprint": fingerprint(model)})


def adapter_names(model: Any) -> frozenset[str] | None:
    """The names in ``state_dict`` of what an adapter learns; None for a model without one."""
    if not hasattr(model, "peft_config"):
        return None
    return frozenset(name for name, parameter in model.named_parameters() if parameter.requires_grad)


def fingerprint(model: Any) -> str:
    """A hash over some numbers of every tensor of the base, whatever their type was rounded to before.

    Shapes and names are part of it. It tells two trained models apart, and is quick for the largest.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(_base_tensors(model).items()):
        flat = value.detach().reshape(-1)
        step = max(1, flat.numel() // _SAMPLED)
        # bf16 is the coarsest that weights come in here: what it keeps is the same in every dtype.
        some = flat[::step][:_SAMPLED].to(torch.bfloat16).cpu().contiguous().view(torch.uint8)
        digest.update(f"{name} {tuple(value.shape)} ".encode())
        digest.update(some.numpy().tobytes())
    return digest.hexdigest()


def check_base(model: Any, said: str | None, where: Path) -> None:
    """``RunFolderError`` when a checkpoint's adapter was trained on a base with another fingerprint."""
    if said is not None and said != fingerprint(model):
        raise RunFolderError(
            "this checkpoint is of another model: its adapter was trained on other weights", where=where,
            hint="put back the base as it was, or remove the folder: the stage starts again from its beginning",
        )  # fmt: skip


def _base_tensors(model: Any) -> dict[str, torch.Tensor]:
    """The base's parameters under their own names, with an adapter around them or without."""
    found = {}
    for name, value in model.named_parameters():
        if ".lora_" in name:
            continue
        found[name.removeprefix("base_model.model.").replace(".base_layer.", ".")] = value
    return found


def _check_targets(model: Any, targets: tuple[str, ...]) -> None:
    kinds = (torch.nn.Linear, Conv1D)
    there = sorted({name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, kinds)})
    strangers = [target for target in targets if target not in there]
    if strangers:
        raise DataError(
            "no layer of the base has this name",
            where="student.lora.targets",
            given=", ".join(strangers),
            allowed=", ".join(["all-linear", *there]),
            hint=did_you_mean(strangers[0], there),
        )


@contextlib.contextmanager
def _without_a_word() -> Iterator[None]:
    """No progress bars, and not what peft says of its own use of transformers."""
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        hint = "pip install 'gradatim[lora]', or leave out student.lora"
        raise DataError("adapters are made by the package 'peft'", where="student.lora", hint=hint) from error
    return peft


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
        tokenizer = open_tokenizer_of(folder, local_files_only=True)
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
        return open_weights(folder, dtype=dtype, local_files_only=True)

    if dtype == "auto":
        config = open_config(folder, local_files_only=True)
        dtype = getattr(config, "dtype", None) or torch.float32
    return open_adapter(folder, dtype=dtype).merge_and_unload()
