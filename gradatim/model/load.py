"""Loading of models: pretrained bases, LoRA adapters, and finished model folders.

A *base* is a folder in Hugging Face's layout, a model's name on the hub (local cache, else fetched unless
``HF_HUB_OFFLINE`` is set), or a .gguf file, whose weights are dequantised; its tokenizer comes with it. An adapter
trained by Gradatim is also a base: it is merged into its own base. Code in a model folder never runs.

LoRA (arXiv 2106.09685) uses the package ``peft``. Model folders and checkpoints store the adapter alone: a ``peft``
adapter with the tokenizer of its training, and ``base.json``, a fingerprint of the base's weights that detects another
base. A ``config.json`` beside an adapter, which earlier versions wrote, would keep
``AutoModelForCausalLM.from_pretrained`` from opening it as ``peft``'s own.

``load_student`` opens a finished model folder from the local disk for evaluation, an adapter merged as `gradatim export
--merge` merges it; ``load_model`` opens any base. ``architecture`` creates models from presets.

Configuration, tokenizer and weights of a model folder, opened without running code from the folder.

The only module that calls ``from_pretrained``, always with ``trust_remote_code=False``. Otherwise transformers prompts
on the terminal, and a ``y`` on standard input runs the Python files of the folder.

Export of a finished model folder, with an adapter merged into its base on request.

With ``merge``, ``export`` writes the weights of an adapter and its base as one standalone model with the tokenizer.
Other model folders are already standalone, and are copied.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast
from transformers.pytorch_utils import Conv1D

from ..errors import DataError, RunFolderError, did_you_mean
from ..files import check_new_folder
from ..record import read_json, write_json, write_new_folder
from ..stage import Events, ignore_events
from .architecture import HEAD, PublishedGPT
from .hardware import keep_memory, quiet
from .hub import (
    ALLOWED,
    base_of_adapter,
    check_adapter_chain,
    check_model_file,
    check_model_folder,
    fetch_hint,
    is_adapter,
    is_hub_name,
    is_model_folder,
    is_offline,
    read_model_json,
    resolve_model,
    without_retry_lines,
)
from .prompt_format import prepare_tokenizer
from .settings import Dtype, LoraSettings, ModelSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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


def open_as_transformers(folder: Path) -> Any:
    """The causal model in ``folder`` by the classes of transformers alone, fp32, as other programs open it."""
    with quiet(), _safe_opening(folder, {}):
        return AutoModelForCausalLM.from_pretrained(
            folder, trust_remote_code=False, weights_only=True, local_files_only=True, dtype=torch.float32
        ).eval()


def _is_published(folder: Path) -> bool:
    try:
        settings = read_model_json(folder / "config.json") if (folder / HEAD).is_file() else {}
    except (OSError, ValueError):
        return False  # opening the folder reports the fault
    return settings.get("head_bias") is True


def open_peft(model: PreTrainedModel, folder: Path, *, trainable: bool) -> Any:
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


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def start_from_base(settings: ModelSettings, tokenizer: Any, *, seed: int) -> Any:
    """The base model, with a new adapter if ``settings.lora``; ``seed`` initialises the adapter's matrices.

    Raises ``DataError`` when the base cannot be opened, or has fewer embeddings than ``tokenizer`` has tokens.
    """
    model = open_base(str(settings.base), dtype=DTYPES[settings.dtype])
    embeddings = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > embeddings:
        sizes = f"{len(tokenizer)} tokens, {embeddings} embeddings"
        raise DataError("the tokenizer has more tokens than the model", where=settings.base, given=sizes)
    # The base's sampling defaults do not apply to the student; its end tokens do.
    ends = model.generation_config.eos_token_id
    end_tokens = {ends} if isinstance(ends, int) else set(ends or ())
    model.generation_config = GenerationConfig(
        bos_token_id=model.generation_config.bos_token_id, eos_token_id=sorted(end_tokens | {tokenizer.eos_token_id})
    )
    if settings.lora is None:
        return model

    return add_adapter(model, base_reference(str(settings.base)), settings.lora, seed=seed)


def load_before_training(settings: ModelSettings, tokenizer: Any, device: str | torch.device) -> LoadedModel:
    """The base for evaluation, with the tokenizer and prompt format of its training.

    The weights have ``settings.evaluation_dtype``, by default fp32 on a CPU and ``settings.dtype`` elsewhere.
    """
    usual = "fp32" if torch.device(device).type == "cpu" else settings.dtype
    dtype = settings.evaluation_dtype or usual
    model = start_from_base(replace(settings, dtype=dtype, lora=None), tokenizer, seed=0)
    return _loaded(model, tokenizer, Path(str(settings.base)), device)


def open_for_training(folder: Path, settings: ModelSettings) -> Any:
    """The model of a finished stage in ``folder``, ready for further training."""
    dtype = DTYPES[settings.dtype]
    if is_adapter(folder):
        return open_adapter(folder, dtype=dtype, trainable=True)
    with quiet():
        return open_weights(folder, dtype=dtype, local_files_only=True)


def enable_gradient_checkpointing(model: PreTrainedModel) -> None:
    """Enable gradient checkpointing: store one activation per layer and recompute the others in the backward pass."""
    options = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(options)
    else:  # the method's older name
        model.gradient_checkpointing_enable(options)


def open_base(base: str, *, dtype: torch.dtype, where: str = "student.base") -> Any:
    """The causal model ``base`` on the CPU, its weights in ``dtype``. ``DataError`` when it cannot be opened.

    ``where``: the location in error messages.
    """
    _check_exists(base, where)
    if is_adapter(base):
        return merged(open_adapter(base, dtype=dtype))
    with _as_data_error(base, "the model cannot be opened", where), quiet():
        model: Any = open_weights(**_arguments(base), dtype=dtype)  # attributes of the quantizer are set below
    if base.endswith(".gguf"):
        # The loader marks the dequantised model as quantised, and such a model cannot be saved.
        model.hf_quantizer, model.is_quantized = None, False
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
    return model.to(dtype)


def open_tokenizer(model: ModelSettings, events: Events = ignore_events) -> Any:
    """The tokenizer of ``model.base`` after ``prepare_tokenizer``. ``DataError`` when the base has none."""
    base = str(model.base)
    tokenizer = open_own_tokenizer(base)
    config = config_of(base)
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and positions < model.context_length:
        raise DataError(
            "the base's context is shorter than the student's",
            where="student.context_length",
            given=f"{model.context_length}; {base} has {positions}",
            hint=f"student.context_length: {positions}, and train.max_length no longer",
        )
    return prepare_tokenizer(tokenizer, model.chat_template, model.system_prompt, config, base, events)


def config_of(base: str, where: str = "student.base") -> Any:
    """The configuration of ``base``, for an adapter that of the model below it. ``DataError`` without one."""
    if is_adapter(base):
        check_adapter_chain(Path(base))
        return config_of(base_of_adapter(Path(base)), f"the base of {base}")
    with _as_data_error(base, "the base's configuration cannot be opened", where), quiet():
        return open_config(**_arguments(base))


def open_own_tokenizer(base: str, where: str = "student.base") -> Any:
    """The tokenizer of ``base``, unchanged; for an adapter without one that of its base. ``DataError`` without any."""
    _check_exists(base, where)
    if is_adapter(base) and not _has_tokenizer(Path(base)):
        check_adapter_chain(Path(base))
        return open_own_tokenizer(base_of_adapter(Path(base)), f"the base of {base}")
    _check_tokenizer(base, where)
    with _as_data_error(base, "the base's tokenizer cannot be opened", where), quiet():
        return open_tokenizer_of(**_arguments(base))


def base_reference(base: str) -> str:
    """The reference to ``base`` in an adapter: a hub name unchanged, a folder or file as its absolute path."""
    return str(Path(base).resolve()) if Path(base).exists() else base


def _arguments(base: str) -> dict[str, Any]:
    if base.endswith(".gguf"):
        file = Path(base)
        return {"name": str(file.parent), "gguf_file": file.name, "local_files_only": True}
    return {"name": base, "local_files_only": Path(base).exists() or is_offline()}


def _check_exists(base: str, where: str) -> None:
    path = Path(base)
    if base.endswith(".gguf"):
        if not path.is_file():
            raise DataError("there is no such file", where=where, given=base)
        try:
            import gguf  # noqa: F401
        except ImportError as error:
            hint = "pip install 'gradatim[gguf]'"
            raise DataError("GGUF files need the package 'gguf'", where=where, hint=hint) from error
        with open(path, "rb") as file:
            magic = file.read(4)
        if magic != b"GGUF":
            raise DataError("this is not a GGUF file", where=where, given=base)
    elif path.is_dir():
        if not is_model_folder(path):
            raise DataError("not a model: the folder has no config.json", where=where, given=base)
    elif not is_hub_name(base):
        raise DataError("there is no such model", where=where, given=base, allowed=ALLOWED)


_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _TOKENIZER_FILES)


def _check_tokenizer(base: str, where: str) -> None:
    folder = Path(base)
    if folder.is_dir() and not _has_tokenizer(folder):
        raise DataError(
            "the model folder has no tokenizer",
            where=where,
            given=base,
            allowed=f"one of {', '.join(_TOKENIZER_FILES)}",
            hint=f"tokenizer.save_pretrained({str(folder)!r})",
        )


@contextlib.contextmanager
def _as_data_error(base: str, what: str, where: str = "student.base") -> Iterator[None]:
    """Convert any exception in the context to a ``DataError`` with a hint."""
    try:
        with without_retry_lines():
            yield
    except DataError:
        raise
    # A broken file can raise any exception of the parser.
    except Exception as error:
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        hint = None
        if not Path(base).exists():
            what = "this model is not in the local cache and cannot be fetched"
            hint = f"{fetch_hint(base)}, or give its folder"
        raise DataError(what, where=f"{where}: {base}", given=cause, hint=hint) from error


BASE = "base.json"
_FINGERPRINT_VALUES = 1024
"""Values of each tensor that a fingerprint covers: fine-tuning changes nearly all values."""


def add_adapter(model: PreTrainedModel, base: str, lora: LoraSettings, *, seed: int) -> Any:
    """``model`` with a new adapter, initially without effect; ``seed`` initialises its matrices.

    ``base``: the reference to the model in the adapter. ``DataError`` when a target matches no layer, or ``peft`` is
    missing.
    """
    peft = _import_peft()
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
    with _silent_peft(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted = peft.get_peft_model(model, config)
    # Set last: peft fills in the model's own origin, and warns about a different one.
    config.base_model_name_or_path = base
    return adapted


def open_adapter(folder: str | Path, *, dtype: torch.dtype, trainable: bool = False) -> Any:
    """The adapter in ``folder`` on its base, whose weights are in ``dtype``.

    ``DataError`` when the base is missing or differs from that of the training, and when the adapter is damaged.
    """
    folder = Path(folder)
    _import_peft()
    check_adapter_chain(folder)
    base = base_of_adapter(folder)
    model = open_base(base, dtype=dtype, where=f"the base of {folder}")
    expected = read_json(folder / BASE, dict).get("fingerprint") if (folder / BASE).is_file() else None
    if expected is not None and expected != fingerprint(model):
        raise DataError(
            "the base differs from the one that this adapter was trained on", where=folder, given=base,
            hint="restore the original model, or train the adapter again",
        )  # fmt: skip
    try:
        with _silent_peft():
            adapted = open_peft(model, folder, trainable=trainable)
    except DataError:
        raise
    # A broken file can raise any exception of the parser.
    except Exception as error:
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise DataError("the adapter cannot be opened", where=folder, given=cause) from error
    return adapted


def merged(adapted: Any) -> Any:
    """The model of an adapter, its matrices added to the weights of the base.

    An adapter of an output layer that is tied to the input embeddings would also change these, so the two are untied.
    """
    model = adapted.get_base_model()
    output, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    layer = getattr(output, "base_layer", None)
    if layer is not None and layer.weight is embeddings.weight:
        layer.weight = torch.nn.Parameter(layer.weight.detach().clone())
        model.config.tie_word_embeddings = False
    with _silent_peft():
        return adapted.merge_and_unload()


def save_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Write the adapter of ``model`` and the fingerprint of its base to ``folder``."""
    with _silent_peft():
        model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # an unfilled template of peft
    adapted: Any = model  # a PeftModel
    config = adapted.peft_config[adapted.active_adapter]
    write_json(folder / BASE, {"base": config.base_model_name_or_path, "fingerprint": fingerprint(model)})


def adapter_names(model: PreTrainedModel) -> frozenset[str] | None:
    """The names in ``state_dict`` of the adapter's trainable parameters; None for a model without an adapter."""
    if not hasattr(model, "peft_config"):
        return None
    return frozenset(name for name, parameter in model.named_parameters() if parameter.requires_grad)


def fingerprint(model: PreTrainedModel) -> str:
    """A hash of the names, shapes and a sample of the values of all tensors of the base, independent of the dtype.

    It distinguishes two trained models, and is quick for large ones.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(_base_tensors(model).items()):
        flat = value.detach().reshape(-1)
        step = max(1, flat.numel() // _FINGERPRINT_VALUES)
        # bf16 is the coarsest dtype of weights here: values rounded to it are equal for all dtypes.
        sample = flat[::step][:_FINGERPRINT_VALUES].to(torch.bfloat16).cpu().contiguous().view(torch.uint8)
        digest.update(f"{name} {tuple(value.shape)} ".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()


def check_base(model: PreTrainedModel, expected: str | None, where: Path) -> None:
    """``RunFolderError`` when a checkpoint's adapter was trained on a base with another fingerprint."""
    if expected is not None and expected != fingerprint(model):
        raise RunFolderError(
            "this checkpoint belongs to another base: its adapter was trained on other weights", where=where,
            hint="restore the original base, or remove the folder to restart the stage",
        )  # fmt: skip


def _base_tensors(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The base's parameters by their names in the base, with or without an adapter."""
    tensors: dict[str, torch.Tensor] = {}
    for name, value in model.named_parameters():
        if ".lora_" in name:
            continue
        tensors[name.removeprefix("base_model.model.").replace(".base_layer.", ".")] = value
    return tensors


def _check_targets(model: PreTrainedModel, targets: tuple[str, ...]) -> None:
    linear_types = (torch.nn.Linear, Conv1D)
    layer_names = sorted(
        {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, linear_types)}
    )
    unknown = [target for target in targets if target not in layer_names]
    if unknown:
        raise DataError(
            "no layer of the base has this name",
            where="student.lora.targets",
            given=", ".join(unknown),
            allowed=", ".join(["all-linear", *layer_names]),
            hint=did_you_mean(unknown[0], layer_names),
        )


@contextlib.contextmanager
def _silent_peft() -> Iterator[None]:
    """No progress bars, and no warnings of peft about its use of transformers."""
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", "Model (has|with) `tie_word_embeddings=True`")  # ``merged`` unties them
        yield


def _import_peft() -> Any:
    try:
        import peft
    except ImportError as error:
        hint = "pip install 'gradatim[lora]', or leave out student.lora"
        raise DataError("adapters need the package 'peft'", where="student.lora", hint=hint) from error
    return peft


@dataclass(frozen=True)
class LoadedModel:
    """A causal model with the tokenizer of its training; the argument of all suites."""

    model: PreTrainedModel
    tokenizer: Any


def load_student(folder: str | Path, device: str | torch.device = "cpu", *, dtype: Dtype | None = None) -> LoadedModel:
    """The model and tokenizer in ``folder``, in evaluation mode on ``device``.

    ``dtype``: type of the weights. By default weights on a CPU are fp32: in bf16 several tokens often have equal
    probability, and the choice among them would depend on the batch. Raises ``DataError`` when the folder is missing,
    not a model folder, or its files are broken.
    """
    keep_memory()
    folder = Path(folder)
    if not is_model_folder(folder):
        state = "the folder has no config.json" if folder.is_dir() else "there is no such folder"
        raise DataError(f"not a model: {state}", where=folder, hint="the model/ folder of a finished stage")
    model: PreTrainedModel
    tokenizer: Any
    try:
        with quiet():
            model = _open_model(folder, torch.device(device), dtype)
        if is_adapter(folder) and not _has_tokenizer(folder):
            tokenizer = open_own_tokenizer(str(folder), "model")
        else:
            tokenizer = open_tokenizer_of(folder, local_files_only=True)
    except DataError:
        raise
    # A broken file can raise any exception of the parser: json, safetensors, KeyError, ...
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        raise DataError("the model cannot be opened", where=folder, given=cause) from error
    return _loaded(model, tokenizer, folder, device)


def load_model(name: str, device: str | torch.device = "cpu", *, dtype: Dtype | None = None) -> LoadedModel:
    """The model ``name`` (a folder, a .gguf file or a name on the hub), as from ``load_student``.

    A name on the hub is fetched when it is not in the local cache. ``dtype``: type of the weights, by default that of
    ``load_student``. Raises ``DataError`` as ``load_student`` does.
    """
    path = resolve_model(name)
    if path.is_dir():
        return load_student(path, device, dtype=dtype)

    tokenizer = open_own_tokenizer(str(path), "model")
    return _loaded(open_base(str(path), dtype=DTYPES[dtype or "fp32"], where="model"), tokenizer, path, device)


def _loaded(model: PreTrainedModel, tokenizer: Any, path: Path, device: str | torch.device) -> LoadedModel:
    module: Any = model  # its methods of torch have no types
    embeddings = module.get_input_embeddings().num_embeddings
    if len(tokenizer) > embeddings:
        sizes = f"{len(tokenizer)} tokens, {embeddings} embeddings"
        raise DataError("the tokenizer has more tokens than the model", where=path, given=sizes)
    return LoadedModel(module.to(device).eval(), tokenizer)


def _open_model(folder: Path, device: torch.device, kind: Dtype | None) -> Any:
    dtype: Any = DTYPES[kind] if kind else torch.float32 if device.type == "cpu" else "auto"
    if not is_adapter(folder):
        return open_weights(folder, dtype=dtype, local_files_only=True)

    if kind == "bf16":  # merged weights would be rounded to bf16, and small changes of the adapter lost
        return open_adapter(folder, dtype=dtype)
    return merged(open_adapter(folder, dtype=base_dtype(folder) if dtype == "auto" else dtype))


@dataclass(frozen=True)
class Exported:
    """The result of an export: the folder, and after a merge the parameter count and the base."""

    folder: str
    parameters: int | None
    merged: str | None


def export(model: Path, out: Path, *, merge: bool = False, dtype: str | None = None) -> Exported:
    """Write the model folder ``model`` to the new or empty folder ``out``.

    ``merge`` merges an adapter into its base, in fp32; the weights are then stored in ``dtype`` (a key of
    ``EXPORT_DTYPES``), by default that of the base. Raises ``UserError`` when ``out`` is not empty, ``DataError`` when
    the model cannot be opened.
    """
    check_new_folder(out, "--out", [model])
    if not merge or not is_adapter(model):
        write_new_folder(out, lambda target: _copy(model, target))
        return Exported(str(out), None, None)

    base = base_of_adapter(model)
    weights = base_dtype(model) if dtype is None else EXPORT_DTYPES[dtype]
    merged_model = merged(open_adapter(model, dtype=torch.float32)).to(weights)

    def fill(target: Path) -> None:
        with quiet():
            merged_model.save_pretrained(target)
        for file in model.iterdir():
            if file.is_file() and not (target / file.name).exists() and not file.name.startswith(("adapter_", "base.")):
                shutil.copy2(file, target / file.name)

    write_new_folder(out, fill)
    return Exported(str(out), sum(parameter.numel() for parameter in merged_model.parameters()), str(base))


EXPORT_DTYPES = {**DTYPES, "fp16": torch.float16}
"""Types of merged weights by name."""


def _copy(model: Path, target: Path) -> None:
    """Copy a model folder; of an adapter without the ``config.json`` of earlier versions."""
    adapter_ignore = shutil.ignore_patterns("config.json") if is_adapter(model) else None
    try:
        shutil.copytree(model, target, dirs_exist_ok=True, ignore=adapter_ignore)
    except OSError as error:
        raise DataError("the model cannot be copied", where=model, given=error) from error


def base_dtype(adapter: Path) -> torch.dtype:
    """The dtype in which the base of the adapter is stored; fp32 for a .gguf file and an unstated dtype."""
    dtype = getattr(config_of(str(adapter), "model"), "dtype", None)
    return dtype if isinstance(dtype, torch.dtype) and not base_of_adapter(adapter).endswith(".gguf") else torch.float32
