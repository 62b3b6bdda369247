"""How does a student learn with few numbers of its own?

Low-rank adaptation (arXiv 2106.09685) by the package ``peft``: the base stands still, and beside some of its layers a
product of two thin matrices is learnt. What is kept of such a student, at rest and in checkpoints, is the adapter
alone. Its folder is a ``peft`` adapter that names its base, with the base's configuration and tokenizer beside it, and
``base.json``: a fingerprint of the base's weights, so that an adapter is never put on another model unnoticed.
"""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from ..errors import DataError, RunFolderError, did_you_mean
from ..record import read_json, write_json
from .hardware import quiet
from .opening import open_peft
from .place import base_below, check_chain
from .settings import LoraSettings

__all__ = ["adapter_names", "attach", "check_base", "fingerprint", "open_adapter", "save_adapter"]

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
    from .pretrained import open_base

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
