"""Which verdicts are known already?

Judging thousands of samples takes a while, and may be stopped. Each verdict goes into a file as it comes, with a key
of all that it depends on, and a second start judges only what is missing. A verdict of another text, problem or limit
is never taken for this one: it is an error that names the file. What is true of a sample is decided in ``judge``.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from ..errors import DataError
from ..files import read_input
from ..parsing import parse_json
from ..record import MISSHAPEN, Metrics, storage_errors
from ..sandbox.limits import Limits
from ..sandbox.verdict import Outcome, Verdict
from .candidate import candidate_of
from .judge import Judged, Reading, judge, problem_for
from .problems import Problem
from .rows import shown
from .samples import Sample

__all__ = ["Verdicts", "check_verdicts", "cut_torn", "judge_once", "key_of"]


def judge_once(
    path: Path,
    problems: Mapping[str, Problem],
    samples: Sequence[Sample],
    *,
    limits: Limits | None = None,
    candidate: Reading = candidate_of,
    **how: Any,
) -> list[Judged]:
    """A verdict for each sample, in their order: those that ``path`` has, and the others judged and added to it.

    ``how`` is handed to ``judge``, whose errors these are too; whatever ends it, verdicts that were found are kept.
    """
    with Verdicts(path) as known:
        keys = {sample: key_of(problem_for(problems, sample.task), sample, limits) for sample in samples}
        found = {sample: verdict for sample in samples if (verdict := known.find(sample, keys[sample])) is not None}
        missing = [sample for sample in samples if sample not in found]
        # Closed at once whatever happens, so that no worker outlives an error.
        with closing(judge(problems, missing, limits=limits, candidate=candidate, **how)) as stream:
            for judged in stream:
                known.add(judged, keys[judged.sample])
                found[judged.sample] = judged.verdict
    return [Judged(sample, found[sample]) for sample in samples]


def cut_torn(path: Path) -> None:
    """Cut off a last line that a killed process left without its end. For files of this package alone."""
    if not path.exists():
        return
    with storage_errors(path), open(path, "r+b") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def key_of(problem: Problem | None, sample: Sample, limits: Limits | None) -> str:
    """16 hex digits that change with anything a verdict depends on."""
    said = [None if problem is None else asdict(problem), sample.form, sample.text, sample.finish]
    if sample.absence is not None:
        said.append(sample.absence)
    said.append(None if limits is None else asdict(limits))
    return hashlib.blake2b(json.dumps(said).encode(), digest_size=8).hexdigest()


class Verdicts:
    """The file in which verdicts are kept as they come: one JSON object a line.

    Keys: task_id, draw, outcome, reason, cpu_seconds and key (what the verdict depends on). Opening it reads what is
    there and cuts off a line that a killed process left torn. Use it as a context manager: it is locked meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._metrics = Metrics(path)
        self._known: dict[tuple[str, int], tuple[str, Verdict]] = {}

    def __enter__(self) -> Verdicts:
        check_verdicts(self.path)
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path, "ab")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise DataError(
                "another process writes these verdicts", where=self.path, hint="wait for it, or --out another file"
            ) from error
        try:
            self._read()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._metrics.close()
        if not self.path.stat().st_size:
            self.path.unlink()  # nothing was judged: leave nothing behind
        self._lock.close()

    def find(self, sample: Sample, key: str) -> Verdict | None:
        """The verdict known for the sample; None when there is none, or none that was decided.

        Raises ``DataError`` when there is one of another text, problem or limit: it is not this command's file.
        """
        known, verdict = self._known.get((sample.task, sample.draw), (key, None))
        if known != key:
            raise DataError(
                f"the verdict on draw {sample.draw} of {shown(sample.task)} is of another sample, problem or limit",
                where=self.path,
                hint="--out another file, or remove this one",
            )
        return None if verdict is None or verdict.outcome == "unjudged" else verdict

    def add(self, judged: Judged, key: str) -> None:
        """Keep one verdict; it reaches the operating system at once."""
        sample, verdict = judged.sample, judged.verdict
        self._metrics.append({"task_id": sample.task, "draw": sample.draw, **asdict(verdict), "key": key})

    def _read(self) -> None:
        """Take what is there, the last verdict on each sample; only then cut off a torn line."""
        for sample, known in _kept(self.path, self.path.read_bytes()):
            self._known[sample] = known
        cut_torn(self.path)


def check_verdicts(path: Path) -> None:
    """Raise ``DataError`` when ``path`` is there and holds something else than verdicts. Changes nothing."""
    if not path.exists():
        return
    try:
        for _ in _kept(path, read_input(path)):
            pass
    except OSError as error:
        raise DataError("the file cannot be read", where=path, given=error.strerror, hint=_ANOTHER) from error


def _kept(path: Path, content: bytes) -> Iterator[tuple[tuple[str, int], tuple[str, Verdict]]]:
    """The verdicts of a file's whole lines by task and draw. Raises ``DataError`` for a line that is none.

    A last line without its end is passed over where ``Verdicts.add`` can have begun it.
    """
    *lines, torn = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            row = parse_json(line)
            verdict = Verdict(row["outcome"], str(row["reason"]), float(row["cpu_seconds"]))
            if verdict.outcome not in get_args(Outcome):
                raise ValueError
            yield (str(row["task_id"]), int(row["draw"])), (str(row["key"]), verdict)
        except MISSHAPEN as error:
            raise _no_verdicts(path, number) from error
    if torn and not _TORN.match(torn) and not (lines and _BEGUN.startswith(torn[: len(_BEGUN)])):
        raise _no_verdicts(path, len(lines) + 1)


_ANOTHER = "--out another file"
_BEGUN = b'{"task_id": "'
_TORN = re.compile(rb'\{"task_id": "(?:[^"\\]|\\.)*", "draw": \d+, "outcome": "')
"""How a line begins that ``Verdicts.add`` writes, up to where no other file of samples does."""


def _no_verdicts(path: Path, line: int) -> DataError:
    return DataError("this file holds something else than verdicts", where=f"{path}, line {line}", hint=_ANOTHER)
