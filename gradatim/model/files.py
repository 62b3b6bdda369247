"""Safety checks on the JSON files of a model folder, before the model is opened.

A model folder may be hostile: its settings may name code to fetch and run, or a model too large to build. The checks
reject such a folder from its JSON files alone, without torch.
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
