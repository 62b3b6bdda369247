"""What does a folder of real Python files look like as samples?

One sample per ``.py`` file, in the order of their paths, the path as its ``source``: the prompt is empty and the
answer is the whole file, as for any code to complete. Files that cannot be read are left out, files that cannot be
parsed are kept (their size is still a size); both are named with the reason. Hidden folders and links to folders
are passed by. Files in other languages are not read.
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
        fault_found = _fault(sources[name])
        if fault_found:
            unparsable[name] = fault_found
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
    found = []
    for folder, below, files in os.walk(root):
        below[:] = [name for name in below if not name.startswith(".") and name != "__pycache__"]
        found += [(Path(folder) / name).relative_to(root).as_posix() for name in files if name.endswith(".py")]
    return sorted(found)


def _fault(source: str) -> str | None:
    """Why ``source`` does not parse, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(source)
    except SyntaxError as fault:
        return f"line {fault.lineno}: {fault.msg}"
    except (ValueError, RecursionError, MemoryError) as fault:
        return str(fault) or type(fault).__name__
    return None
