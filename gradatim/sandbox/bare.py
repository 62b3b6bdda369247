"""How is a program run where no walls can be had, when the user has explicitly said so?

``--unsafe`` means what it says: the program can read, write and reach whatever its user can. What is still kept is
what ordinary means give: resource limits, a private temporary folder, a process group of its own, an empty
environment, and an end for everything that can be found afterwards: the tree below the first process, its group, and
whatever still carries the mark that the run's environment has. A program that means to escape can.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from ..errors import StorageFailed
from .enclosure import ENVIRONMENT, initial
from .execution import Execution, Invocation
from .root import WORK
from .supervise import Tree, end, start, supervise
from .watch import descendants

__all__ = ["BareTree", "run_bare"]

MARK = "GRADATIM_RUN"


def run_bare(asked: Invocation, known: Callable[[Tree], AbstractContextManager[object]]) -> Execution:
    """Run what is asked without walls; ``known`` is told its tree while it lives. ``StorageFailed`` on a full disk."""
    with ExitStack() as stack:
        folder = stack.enter_context(_folder(asked.files))
        argv = _command(asked, folder)
        environment = _environment(asked, folder)
        process = start(argv, asked.stdin, environment=environment, folder=folder)
        tree = BareTree(process.pid, environment[MARK])
        stack.callback(tree.kill_marked)
        stack.callback(end, process, tree)
        with known(tree):
            ended = supervise(process, tree, stdin=asked.stdin, limits=asked.limits)
        # What the program left running is found by its mark, before its files are read.
        tree.kill_marked()
        files = _collected(folder, asked) if ended.killed is None else {}
        return ended.execution(files)


@contextmanager
def _folder(files: Mapping[str, bytes]) -> Iterator[Path]:
    """A private temporary folder with the program's files in it; gone when the context is left."""
    folder: Path | None = None
    try:
        try:
            folder = Path(tempfile.mkdtemp(prefix="gradatim-"))
            for name, content in files.items():
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
                target.chmod(0o755)
        except OSError as error:
            raise StorageFailed(str(error), where="sandbox", hint="free disk space, or set TMPDIR") from error
        yield folder
    finally:
        if folder is not None:
            shutil.rmtree(folder, onerror=_open_and_retry)


def _open_and_retry(remove: Callable[..., object], path: str, _error: object) -> None:
    """A program may take the rights away from folders that it made; their owner can give them back."""
    with suppress(OSError):
        os.chmod(os.path.dirname(path), 0o700)
        os.chmod(path, 0o700)
        shutil.rmtree(path, ignore_errors=True) if remove is not os.unlink else os.unlink(path)


def _collected(folder: Path, asked: Invocation) -> dict[str, bytes]:
    """The plain files asked for that keep the limits. Links are not followed: they may lead anywhere."""
    found = {}
    for name in asked.collect:
        path = folder / name
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= asked.limits.file_bytes:
            with suppress(OSError):
                found[name] = path.read_bytes()
    return found


def _environment(asked: Invocation, folder: Path) -> dict[str, str]:
    """What the program sees, and a mark to find its processes by."""
    places = _places(folder, asked.mounts)
    given = {**ENVIRONMENT, **asked.environment}
    return {name: _moved(value, places) for name, value in given.items()} | {MARK: secrets.token_hex(16)}


def _command(asked: Invocation, folder: Path) -> list[str]:
    """The command with its places moved, started by a shell that sets the resource limits."""
    places = _places(folder, asked.mounts)
    init = initial(asked.limits, processes=False)
    return ["/bin/sh", "-c", init, "init", *(_moved(word, places) for word in asked.command)]


def _places(folder: Path, mounts: Mapping[Path, str]) -> dict[str, str]:
    return {WORK: str(folder)} | {place: str(Path(source).resolve()) for source, place in mounts.items()}


def _moved(word: str, places: Mapping[str, str]) -> str:
    """``word`` with every place inside replaced by the host's, as whole paths: ``-I/work``, ``a:/cache/b``."""
    if not any(place in word for place in places):
        return word
    longest_first = "|".join(re.escape(place) for place in sorted(places, key=len, reverse=True))
    pattern = rf"(?:(?<![\w./-])|(?<=-[A-Z]))({longest_first})(?=/|:|$)"
    return re.sub(pattern, lambda found: places[found[1]], word)


class BareTree:
    """The processes of one run without walls: what was seen below the first process, and what carries the mark."""

    def __init__(self, root: int, mark: str) -> None:
        self._root, self._mark = root, f"{MARK}={mark}".encode()

    def root(self) -> int:
        """The first process."""
        return self._root

    def kill(self) -> None:
        """Kill the tree, its group, and every process of the machine whose environment carries the mark."""
        for process in list(descendants(self._root)):
            _kill(process)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._root, signal.SIGKILL)
        self.kill_marked()

    def kill_marked(self) -> None:
        """Kill what carries the mark, until a look finds nothing: a program may fork while it is looked for."""
        for _ in range(20):
            if not any([_kill(process) for process in self._marked()]):
                return

    def _marked(self) -> list[int]:
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid():
                with suppress(OSError):
                    if self._mark in Path("/proc", name, "environ").read_bytes().split(b"\0"):
                        found.append(int(name))
        return found


def _kill(process: int) -> bool:
    try:
        os.kill(process, signal.SIGKILL)
    except OSError:
        return False
    return True
