"""The small files of a model folder, read before anything opens the model.

Whoever made the folder may have meant ill: settings that name code to be fetched and run, or a model too large to be
built. Such a folder is refused here, on the word of its own JSON files. No torch, and nothing is opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import read_input
from ..parsing import parse_json

__all__ = ["MOST_LAYERS", "check_model_file", "check_model_folder", "read_model_json"]


MOST_LAYERS = 4096
"""Layers, or experts in one: several times what the largest published models have."""
LARGEST_JSON = 256 << 20
"""Bytes; tokenizers of large vocabularies reach 40 MB, and their settings far less."""
_COUNTS = re.compile(r"n_layers?|(\w+_)?layers|num_(\w+_)?experts|n_(\w+_)?experts")
_ATTENTION = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")


def read_model_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a model. ``ValueError`` when it is none, ``OSError`` when it cannot be read."""
    try:
        value = parse_json(read_input(path, LARGEST_JSON), large=True)  # model_max_length is 10^30 at times
    except DataError as error:
        raise ValueError(f"{path.name}: {error.message}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} is no JSON object")
    return value


def check_model_folder(folder: Path, where: object = None) -> None:
    """Raise ``DataError`` for a folder whose settings would have code of others run, or no end of layers built."""
    for name in ("config.json", "adapter_config.json"):
        path = folder / name
        if not path.exists():
            continue
        try:
            settings = read_model_json(path)
        except (ValueError, OSError) as error:
            given = error.strerror if isinstance(error, OSError) else error
            raise DataError("the model cannot be opened", where=where or folder, given=f"{name}: {given}") from error
        _check(settings, where or path)


def check_model_file(file: Path, where: object = None) -> None:
    """The same of a .gguf file, as far as it says how many layers it has."""
    try:
        import gguf

        fields = gguf.GGUFReader(file).fields
        counts = {name: fields[name].contents() for name in fields if name.endswith((".block_count", ".expert_count"))}
    except Exception:  # the package is not there, or the file is broken: opening it says so
        return
    for name, count in counts.items():
        if isinstance(count, int) and count > MOST_LAYERS:
            raise _too_many(name, count, where or file)


def _check(settings: dict[str, Any], where: object) -> None:
    for key, value in _entries(settings):
        if isinstance(value, int) and not isinstance(value, bool) and _COUNTS.fullmatch(key) and value > MOST_LAYERS:
            raise _too_many(key, value, where)
        named = value.values() if isinstance(value, dict) else [value]
        if key in _ATTENTION and any(isinstance(each, str) and "/" in each for each in named):
            raise DataError(
                "the model's settings name code to be fetched and run, which is never done",
                where=where,
                given=key,
                hint=f"remove {key} from the file",
            )
        if key == "megatron_config" and value:
            raise DataError("adapters of Megatron are not opened", where=where, given=key)


def _entries(settings: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every key with its value, those of settings inside settings too."""
    for key, value in settings.items():
        yield key, value
        if isinstance(value, dict):
            yield from _entries(value)


def _too_many(key: str, count: int, where: object) -> DataError:
    return DataError("a model of that size cannot be built", where=where, given=f"{key} {count:,}", allowed=MOST_LAYERS)
