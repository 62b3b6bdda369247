"""What kind of model does a name mean, and how large is it?

Answered without opening it and without torch, for recipes and plans: a folder's safetensors begin with the shapes of
all their tensors, and so does a GGUF file. Of a model on the hub nothing is known before it is fetched.
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..parsing import parse_json
from .model_files import read_model_json
from .settings import LoraSettings

__all__ = ["Size", "is_adapter", "is_hub_name", "size_of"]

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
