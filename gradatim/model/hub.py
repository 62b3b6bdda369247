"""Model names, resolved to local files, and their metadata, read without torch and without opening the model.

A name is a value of ``student.base``: a folder, a .gguf file, or a name on the hub, whose files come from the local
cache or, unless this machine is offline, from the hub. The weights of an adapter lie in its own folder and in that of
its base. The parameter count comes from the tensor shapes in the headers of safetensors and GGUF files, the presence of
a chat template from small files; both are unavailable for a model on the hub.

Safety checks on the JSON files of a model folder, before the model is opened.

A model folder may be hostile: its settings may name code to fetch and run, or a model too large to build. The checks
reject such a folder from its JSON files alone, without torch.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError, RecipeError, did_you_mean
from ..files import read_input
from ..options import parse_json
from .settings import AnswerFormat, LoraSettings, ModelSettings

MOST_LAYERS = 4096
"""Layers, or experts per layer: several times the largest published models."""
LARGEST_JSON = 256 << 20
"""Bytes; tokenizers of large vocabularies reach 40 MB, and their settings far less."""
_COUNT_KEYS = re.compile(r"n_layers?|(\w+_)?layers|num_(\w+_)?experts|n_(\w+_)?experts")
_IMPLEMENTATION_KEYS = (
    "attn_implementation",
    "_attn_implementation",
    "experts_implementation",
    "_experts_implementation",
)


def read_model_json(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``. ``ValueError`` when it is not an object, ``OSError`` when it cannot be read."""
    try:
        value = parse_json(read_input(path, LARGEST_JSON), large=True)  # model_max_length is 10^30 at times
    except DataError as error:
        raise ValueError(f"{path.name}: {error.message}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    return value


def check_model_folder(folder: Path, where: object = None) -> None:
    """Raise ``DataError`` for a folder whose settings name foreign code or more layers than ``MOST_LAYERS``."""
    for name in ("config.json", "adapter_config.json"):
        path = folder / name
        if not path.exists():
            continue
        try:
            settings = read_model_json(path)
        except (ValueError, OSError) as error:
            cause = error.strerror if isinstance(error, OSError) else error
            raise DataError("the model cannot be opened", where=where or folder, given=f"{name}: {cause}") from error
        _check_settings(settings, where or path)


def check_model_file(file: Path, where: object = None) -> None:
    """The layer count of ``check_model_folder`` for a .gguf file, if its header has one."""
    try:
        import gguf

        fields = gguf.GGUFReader(file).fields
        counts = {name: fields[name].contents() for name in fields if name.endswith((".block_count", ".expert_count"))}
    except Exception:  # the package is missing or the file is broken: opening it reports that
        return
    for name, count in counts.items():
        if isinstance(count, int) and count > MOST_LAYERS:
            raise _size_error(name, count, where or file)


def _check_settings(settings: dict[str, Any], where: object) -> None:
    for key, value in _entries(settings):
        if (
            isinstance(value, int)
            and not isinstance(value, bool)
            and _COUNT_KEYS.fullmatch(key)
            and value > MOST_LAYERS
        ):
            raise _size_error(key, value, where)
        names = value.values() if isinstance(value, dict) else [value]
        if key in _IMPLEMENTATION_KEYS and any(isinstance(name, str) and "/" in name for name in names):
            raise DataError(
                "the model's settings name code to fetch and run, which is not allowed",
                where=where,
                given=key,
                hint=f"remove {key} from the file",
            )
        if key == "megatron_config" and value:
            raise DataError("Megatron adapters are not supported", where=where, given=key)


def _entries(settings: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """All keys with their values, those of nested objects included."""
    for key, value in settings.items():
        yield key, value
        if isinstance(value, dict):
            yield from _entries(value)


def _size_error(key: str, count: int, where: object) -> DataError:
    return DataError("the model is too large to build", where=where, given=f"{key} {count:,}", allowed=MOST_LAYERS)


LARGEST_HEADER = 100_000_000
"""Bytes; the limit of the safetensors library."""
_UNADAPTED = ("lm_head", "output.weight", "embed", "wte", "wpe", "token_embd")
_LAYER = re.compile(r"(?:layers|blk|h|block)\.\d+\.")


@dataclass(frozen=True)
class ModelSize:
    """Parameter counts of a model: in total, and trainable."""

    total: int
    trainable: int


def is_hub_name(base: str) -> bool:
    """Whether ``base`` can be a model's name on the hub: OWNER/NAME, or NAME, and not an existing path."""
    return re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", base) is not None and not Path(base).exists()


def is_local_name(name: str) -> bool:
    """Whether ``name`` is a folder, or can only be a path: not a .gguf file and not a possible name on the hub.

    A name in an existing folder, such as ``runs/hybird`` beside ``runs/hybrid``, is a path.
    """
    path = Path(name)
    if path.is_dir():
        return True
    return not name.endswith(".gguf") and (not is_hub_name(name) or ("/" in name and path.parent.is_dir()))


def is_adapter(base: str | Path) -> bool:
    """Whether ``base`` is a folder with a peft adapter."""
    return (Path(base) / "adapter_config.json").is_file()


def is_model_folder(folder: Path) -> bool:
    """Whether ``folder`` holds a model or an adapter: ``config.json``, or ``adapter_config.json`` of peft."""
    return (folder / "config.json").is_file() or is_adapter(folder)


def model_size(base: str, lora: LoraSettings | None, adapters: tuple[str, ...] = ()) -> ModelSize | None:
    """The approximate parameter counts of the base; None when its files do not give them.

    ``adapters``: the chain of adapters on top of it, to detect a cycle.
    """
    try:
        if is_adapter(base):
            base_name = read_model_json(Path(base) / "adapter_config.json")["base_model_name_or_path"]
            chain = (*adapters, os.path.realpath(base))
            return model_size(str(base_name), lora, chain) if os.path.realpath(str(base_name)) not in chain else None
        shapes = list(_gguf_shapes(Path(base)) if base.endswith(".gguf") else _safetensors_shapes(Path(base)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error, ImportError):
        return None
    if not shapes:
        return None
    total = sum(math.prod(shape) for _, shape in shapes)
    if lora is None:
        return ModelSize(total, total)
    return ModelSize(total, sum(lora.rank * sum(shape) for name, shape in shapes if _is_adapted(name, shape, lora)))


def _is_adapted(name: str, shape: Sequence[int], lora: LoraSettings) -> bool:
    if len(shape) != 2 or any(head in name for head in _UNADAPTED) or not _LAYER.search(name):
        return False
    return lora.targets == ("all-linear",) or name.removesuffix(".weight").rpartition(".")[2] in lora.targets


def _safetensors_shapes(folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > LARGEST_HEADER:
                raise ValueError("the header is too long")
            header = parse_json(file.read(length))
        yield from ((name, tuple(tensor["shape"])) for name, tensor in header.items() if name != "__metadata__")


def _gguf_shapes(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    import gguf

    yield from ((tensor.name, tuple(map(int, tensor.shape))) for tensor in gguf.GGUFReader(path).tensors)


ALLOWED = "a folder with config.json or adapter_config.json, a .gguf file, or a name on the hub such as OWNER/NAME"
WEIGHTS = "*.safetensors"
OLDER_WEIGHTS = "*.bin"
SMALL = ("*.json", "*.model", "*.txt", "*.jinja")


def check_model(base: str) -> None:
    """Raise ``DataError`` when ``base`` is neither an existing path nor a possible name on the hub."""
    path = Path(base)
    if path.exists() or (not base.endswith(".gguf") and is_hub_name(base)):
        return
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    raise DataError("there is no such model", where=base, allowed=ALLOWED, hint=did_you_mean(path.name, siblings))


@contextlib.contextmanager
def without_retry_lines() -> Iterator[None]:
    """Context in which the hub's client prints no line for each attempt: the failure of the last one is an error."""
    logger = logging.getLogger("huggingface_hub.utils._http")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def resolve_model(base: str) -> Path:
    """The folder or the .gguf file of ``base``; a name on the hub is fetched when it is not in the local cache.

    Raises ``DataError`` when there is no such model and it cannot be fetched.
    """
    check_model(base)
    if Path(base).exists():
        return Path(base)
    folder = _cached_folder(base)
    if folder is not None:
        return folder
    cause = None
    try:
        for kind in (WEIGHTS, OLDER_WEIGHTS):
            with without_retry_lines():
                folder = _download(base, kind)
            if _is_complete(folder, kind):
                return folder
    # No network, no such name, no access: the client raises a different error for each.
    except Exception as error:
        cause = error
    raise DataError(
        "there is no such folder, and this model is not in the local cache and cannot be fetched",
        where=base,
        given="no weights" if cause is None else " ".join(f"{type(cause).__name__}: {cause}".split())[:300],
        hint=f"{fetch_hint(base)}, or give its folder",
    ) from cause


def weight_paths(base: str) -> list[Path]:
    """The folders and files with the weights of ``base``: its path, and for an adapter also the path of each base."""
    paths: list[Path] = []
    name: str | None = base
    while name is not None:
        path = resolve_model(name)
        if path.resolve() in [earlier.resolve() for earlier in paths]:
            raise DataError("the bases of this adapter form a cycle", where=path)
        paths.append(path)
        name = base_of_adapter(path) if is_adapter(path) else None
    return paths


def base_of_adapter(folder: Path) -> str:
    """The base of the adapter in ``folder``, as a value of ``student.base``."""
    try:
        base = read_model_json(folder / "adapter_config.json")["base_model_name_or_path"]
        if not isinstance(base, str):
            raise ValueError("base_model_name_or_path is not a string")
    except (OSError, KeyError, ValueError) as error:
        raise DataError("this adapter does not name its base", where=folder, given=error) from error
    # A path relative to the adapter lets both folders move together.
    relative = folder / str(base)
    return str(relative.resolve()) if not Path(str(base)).is_absolute() and relative.exists() else str(base)


def check_adapter_chain(folder: Path) -> None:
    """Raise ``DataError`` when the chain of bases of the adapter in ``folder`` contains a cycle."""
    chain: list[Path] = []
    path = folder
    while is_adapter(path):
        if path.resolve() in chain:
            raise DataError("the bases of this adapter form a cycle", where=folder)
        chain.append(path.resolve())
        path = Path(base_of_adapter(path))


def has_template(base: str) -> bool | None:
    """Whether the tokenizer of ``base`` has a chat template; None when its small files do not show that.

    None for a name on the hub: the client of the local cache is slow to import, and checks must be quick.
    """
    path = Path(base)
    if not path.exists():
        return None
    if path.is_file():
        return _gguf_has_template(path)
    if any(
        (path / name).exists() for name in ("chat_template.jinja", "chat_template.json", "additional_chat_templates")
    ):
        return True
    try:
        return bool(read_model_json(path / "tokenizer_config.json").get("chat_template"))
    except (OSError, ValueError):
        return None


def check_chat(student: ModelSettings, chat_keys: Iterable[str]) -> None:
    """Raise ``RecipeError`` when ``chat_keys`` (recipe keys that are set) need a chat template that the student lacks.

    A template that only opening the model would show counts as present (``has_template``).
    """
    keys = list(chat_keys)
    if not keys or (student.base is not None and has_template(student.base) is not False):
        return
    given = "a student that is trained from scratch" if student.base is None else student.base
    raise RecipeError(
        "the student's tokenizer has no chat template", where=", ".join(keys), given=given, hint="leave out chat"
    )


def answer_format(student: ModelSettings) -> AnswerFormat:
    """The form of programs as answers: that of the settings, by default fenced for a student with a chat template.

    A template that only opening the model would show counts as present.
    """
    if student.answer_format != "auto":
        return student.answer_format
    if student.base is None or student.chat_template == "plain":
        return "code"
    return "fenced" if student.chat_template == "chat" or has_template(student.base) is not False else "code"


def is_offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` forbids requests to the hub."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")


def fetch_hint(base: str) -> str:
    """The command that fetches a model from the hub, and the machine on which to run it."""
    return f"`hf download {base}` {'on a machine with a network' if is_offline() else 'once the network is there'}"


def _cached_folder(base: str) -> Path | None:
    """The folder of the local cache with a complete result of ``_download``, or None.

    Same file patterns as the download: the client checks completeness only for files that match them.
    """
    from huggingface_hub import snapshot_download

    for kind in (WEIGHTS, OLDER_WEIGHTS):
        try:
            folder = Path(snapshot_download(base, allow_patterns=[*SMALL, kind], local_files_only=True))
        except Exception:  # not in the cache, or in a form that the client cannot read
            continue
        if _is_complete(folder, kind):
            return folder
    return None


def _is_complete(folder: Path, kind: str) -> bool:
    """Whether the weights exist, all shards of an index included."""
    shards: set[str] = set()
    for index in folder.glob(f"{kind}.index.json"):
        try:
            shards |= set(read_model_json(index)["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            return False
    return any(folder.glob(kind)) and all((folder / shard).is_file() for shard in shards)


def _download(base: str, weights: str) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(base, allow_patterns=[*SMALL, weights]))


def _gguf_has_template(file: Path) -> bool | None:
    try:
        import gguf

        return "tokenizer.chat_template" in gguf.GGUFReader(file).fields
    except Exception:  # the package is missing or the file is broken: opening it reports that
        return None
