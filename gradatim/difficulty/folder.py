"""Samples from a folder of Python files.

One sample per ``.py`` file, in the order of their paths, the path as its ``source``: the prompt is empty and the answer
is the whole file. Files that cannot be read are left out, files that do not parse stay (their size is still a size);
both are reported with the reason. Hidden folders, links to folders and files in other languages are ignored.
"""

from __future__ import annotations

import ast
import os
import tokenize
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..files import check_input

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["read_folder"]


def read_folder(path: str | os.PathLike[str]) -> tuple[pa.Table, dict[str, Any]]:
    """The Python files below ``path`` as a table, and {"files", "unreadable": {path: why}, "unparsable": {…}}.

    Paths are relative to ``path``, with forward slashes. Encodings are those the files declare (PEP 263). Raises
    ``DataError`` when there is no such folder, or no readable Python file in it.
    """
    from ..table import make_table

    root = Path(path)
    if not root.is_dir():
        raise DataError("there is no such folder", where=root, hint="the path of a folder of .py files")
    names = _python_files(root)
    sources: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    unparsable: dict[str, str] = {}
    for path in names:
        name = path.encode("utf-8", "backslashreplace").decode()  # a table holds UTF-8 alone
        try:
            check_input(root / path)
            with tokenize.open(root / path) as file:
                sources[name] = file.read()
        except DataError as fault:
            unreadable[name] = fault.message
            continue
        except (OSError, SyntaxError, UnicodeError) as fault:
            unreadable[name] = str(fault)
            continue
        syntax_fault = _fault(sources[name])
        if syntax_fault:
            unparsable[name] = syntax_fault
    if not sources:
        raise DataError("no Python file can be read there", where=root, given=f"{len(names)} .py files")
    table = make_table(
        {
            "answer": list(sources.values()),
            "language": ["python"] * len(sources),
            "source": list(sources),
        }
    )
    return table, {"files": len(names), "unreadable": unreadable, "unparsable": unparsable}


def _python_files(root: Path) -> list[str]:
    paths = []
    for folder, below, files in os.walk(root):
        below[:] = [name for name in below if not name.startswith(".") and name != "__pycache__"]
        paths += [(Path(folder) / name).relative_to(root).as_posix() for name in files if name.endswith(".py")]
    return sorted(paths)


def _fault(source: str) -> str | None:
    """The reason why ``source`` does not parse, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(source)
    except SyntaxError as fault:
        return f"line {fault.lineno}: {fault.msg}"
    except (ValueError, RecursionError, MemoryError) as fault:
        return str(fault) or type(fault).__name__
    return None
