"""What kind of model does a name mean, and how large is it?

Answered without opening it and without torch, for recipes and plans: a folder's safetensors begin with the shapes of
all their tensors, and so does a GGUF file. Of a model on the hub nothing is known before it is fetched.

Where on this disk is the model that a name means, and what is known of it before it is opened?

A name is what ``student.base`` takes: a folder, a .gguf file, or a name on the hub, whose files are looked for in the
local cache and fetched unless this machine is offline. An adapter stands on a base, so its weights lie in two places.
Whether its tokenizer has a chat template is read from small files. No torch here, and nothing is opened.
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError, RecipeError, did_you_mean
from ..parsing import parse_json
from .files import read_model_json
from .settings import LoraSettings, ModelSettings

__all__ = [
    "Size",
    "base_below",
    "check_chain",
    "check_chat",
    "check_model",
    "fetch_hint",
    "has_template",
    "held",
    "is_adapter",
    "is_hub_name",
    "is_offline",
    "places_of",
    "size_of",
]


LARGEST_HEADER = 100_000_000
"""Bytes; what the format's own library allows."""
_HEAD = ("lm_head", "output.weight", "embed", "wte", "wpe", "token_embd")
_LAYER = re.compile(r"(?:layers|blk|h|block)\.\d+\.")


@dataclass(frozen=True)
class Size:
    """Numbers in a model: all of them, and those that are learnt."""

    all: int
    learnt: int


def is_hub_name(base: str) -> bool:
    """Whether ``base`` can be a model's name on the hub: OWNER/NAME, or NAME, and no path that is there."""
    return re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", base) is not None and not Path(base).exists()


def is_adapter(base: str | Path) -> bool:
    """Whether ``base`` is a folder with a peft adapter."""
    return (Path(base) / "adapter_config.json").is_file()


def size_of(base: str, lora: LoraSettings | None, above: tuple[str, ...] = ()) -> Size | None:
    """About how large the base is, and how much of it is learnt; None when that is not known before it is opened.

    ``above``: the adapters that stand on it.
    """
    try:
        if is_adapter(base):
            below = read_model_json(Path(base) / "adapter_config.json")["base_model_name_or_path"]
            known = (*above, os.path.realpath(base))
            return size_of(str(below), lora, known) if os.path.realpath(str(below)) not in known else None
        shapes = list(_gguf(Path(base)) if base.endswith(".gguf") else _safetensors(Path(base)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error, ImportError):
        return None
    if not shapes:
        return None
    whole = sum(math.prod(shape) for _, shape in shapes)
    if lora is None:
        return Size(whole, whole)
    return Size(whole, sum(lora.rank * sum(shape) for name, shape in shapes if _adapted(name, shape, lora)))


def _adapted(name: str, shape: Sequence[int], lora: LoraSettings) -> bool:
    if len(shape) != 2 or any(part in name for part in _HEAD) or not _LAYER.search(name):
        return False
    return lora.targets == ("all-linear",) or name.removesuffix(".weight").rpartition(".")[2] in lora.targets


def _safetensors(folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > LARGEST_HEADER:
                raise ValueError("the header is too long")
            header = parse_json(file.read(length))
        yield from ((name, tuple(each["shape"])) for name, each in header.items() if name != "__metadata__")


def _gguf(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    import gguf

    yield from ((each.name, tuple(map(int, each.shape))) for each in gguf.GGUFReader(path).tensors)


ALLOWED = "a folder with config.json, a .gguf file, or a name on the hub such as OWNER/NAME"
WEIGHTS = "*.safetensors"
OLDER_WEIGHTS = "*.bin"
SMALL = ("*.json", "*.model", "*.txt", "*.jinja")


def check_model(base: str) -> None:
    """Raises ``DataError`` when ``base`` is neither there nor a name that the hub may know."""
    path = Path(base)
    if path.exists() or (not base.endswith(".gguf") and is_hub_name(base)):
        return
    near = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    raise DataError("there is no such model", where=base, allowed=ALLOWED, hint=did_you_mean(path.name, near))


def held(base: str) -> Path:
    """The folder or the .gguf file of ``base``; a name on the hub is fetched when it is not in the local cache.

    Raises ``DataError`` when there is none and it cannot be had.
    """
    check_model(base)
    if Path(base).exists():
        return Path(base)
    folder = _cached(base)
    if folder is not None:
        return folder
    cause = None
    try:
        for kind in (WEIGHTS, OLDER_WEIGHTS):
            folder = _fetched(base, kind)
            if _is_whole(folder, kind):
                return folder
    # No network, no such name, no right to it: the client has an error of its own for each.
    except Exception as error:
        cause = error
    raise DataError(
        "this model is not in the local cache and cannot be fetched",
        where=base,
        given="no weights" if cause is None else " ".join(f"{type(cause).__name__}: {cause}".split())[:300],
        hint=f"{fetch_hint(base)}, or give its folder",
    ) from cause


def places_of(base: str) -> list[Path]:
    """Where the weights of ``base`` lie: its folder or file, and for an adapter those that it stands on as well."""
    found: list[Path] = []
    below: str | None = base
    while below is not None:
        place = held(below)
        if place.resolve() in [known.resolve() for known in found]:
            raise DataError("this adapter stands on itself", where=place)
        found.append(place)
        below = base_below(place) if is_adapter(place) else None
    return found


def base_below(folder: Path) -> str:
    """What the adapter in ``folder`` was trained on, as ``student.base`` would name it."""
    try:
        base = read_model_json(folder / "adapter_config.json")["base_model_name_or_path"]
        if not isinstance(base, str):
            raise ValueError("base_model_name_or_path is no text")
    except (OSError, KeyError, ValueError) as error:
        raise DataError("this adapter does not name its base", where=folder, given=error) from error
    # A folder beside the adapter may be named from there, so that both can be moved together.
    beside = folder / str(base)
    return str(beside.resolve()) if not Path(str(base)).is_absolute() and beside.exists() else str(base)


def check_chain(folder: Path) -> None:
    """Raises ``DataError`` when the adapter in ``folder`` stands on itself, over however many others."""
    known: list[Path] = []
    below = folder
    while is_adapter(below):
        if below.resolve() in known:
            raise DataError("this adapter stands on itself", where=folder)
        known.append(below.resolve())
        below = Path(base_below(below))


def has_template(base: str) -> bool | None:
    """Whether the tokenizer of ``base`` has a chat template; None when that is not known before it is opened.

    Of a name on the hub nothing is: the client that knows the local cache is slow to import, and checks are quick.
    """
    place = Path(base)
    if not place.exists():
        return None
    if place.is_file():
        return _gguf_has_template(place)
    if any(
        (place / name).exists() for name in ("chat_template.jinja", "chat_template.json", "additional_chat_templates")
    ):
        return True
    try:
        return bool(read_model_json(place / "tokenizer_config.json").get("chat_template"))
    except (OSError, ValueError):
        return None


def check_chat(student: ModelSettings, asked: Iterable[str]) -> None:
    """Raises ``RecipeError`` when the keys in ``asked`` want a chat template and the student will have none.

    Said as far as ``has_template`` knows it without opening the student.
    """
    keys = list(asked)
    if not keys or (student.base is not None and has_template(student.base) is not False):
        return
    given = "a student of this package's own" if student.base is None else student.base
    raise RecipeError(
        "the student's tokenizer has no chat template", where=", ".join(keys), given=given, hint="leave out chat"
    )


def is_offline() -> bool:
    """Whether this machine was told not to ask the hub."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")


def fetch_hint(base: str) -> str:
    """The command that brings a model from the hub, and where it helps."""
    return f"`hf download {base}` {'on a machine with a network' if is_offline() else 'once the network is there'}"


def _cached(base: str) -> Path | None:
    """The folder of the local cache that holds what ``_fetched`` brings, whole; None when there is none.

    It is asked for by the same patterns: the client takes a folder for complete only as far as these go.
    """
    from huggingface_hub import snapshot_download

    for kind in (WEIGHTS, OLDER_WEIGHTS):
        try:
            folder = Path(snapshot_download(base, allow_patterns=[*SMALL, kind], local_files_only=True))
        except Exception:  # not in the cache, or not such as the client knows
            continue
        if _is_whole(folder, kind):
            return folder
    return None


def _is_whole(folder: Path, kind: str) -> bool:
    """Whether its weights are there, every part that an index names included."""
    parts: set[str] = set()
    for index in folder.glob(f"{kind}.index.json"):
        try:
            parts |= set(read_model_json(index)["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            return False
    return any(folder.glob(kind)) and all((folder / part).is_file() for part in parts)


def _fetched(base: str, weights: str) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(base, allow_patterns=[*SMALL, weights]))


def _gguf_has_template(file: Path) -> bool | None:
    try:
        import gguf

        return "tokenizer.chat_template" in gguf.GGUFReader(file).fields
    except Exception:  # the package is not there, or the file is broken: who opens it will say so
        return None
