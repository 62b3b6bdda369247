"""Contracts of exported models: ``Exporter`` writes one format, ``Runtime`` is the program that runs the result.

``proof.prove`` compares every runtime with the original through ``encode`` and ``generate``, so a format needs no
evaluation code of its own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ..model.load import LoadedModel

CANDIDATES = 64
"""Likeliest tokens of a position whose log-probabilities are compared; a vocabulary of 50,000 is not sent in full."""


@dataclass(frozen=True)
class Generation:
    """A greedy continuation.

    ``tokens`` (n,), the end token included where it was reached. ``candidates`` (n, k) are the likeliest tokens of each
    position, ``log_probabilities`` (n, k, nats) theirs.
    """

    tokens: npt.NDArray[np.int64]
    candidates: npt.NDArray[np.int64]
    log_probabilities: npt.NDArray[np.float64]


class Runtime(Protocol):
    """An exported model, opened by the program that users run it with."""

    def encode(self, text: str) -> list[int]:
        """Tokens of ``text`` by the exported tokenizer, without special tokens."""
        ...

    def generate(self, prompt: Sequence[int], limit: int, *, draft: Sequence[int] = ()) -> Generation:
        """Greedy continuation of ``prompt``, up to ``limit`` tokens or the end token.

        ``draft``: an expected continuation, for speculative decoding; it changes only the speed.
        """
        ...

    def cpu_seconds(self) -> float:
        """Processor time so far of the process that computes, in seconds; by default that of this process."""
        return time.process_time()


@dataclass(frozen=True)
class ExportFiles:
    """Files of an export: ``names`` relative to the folder, and ``notes`` for the user."""

    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Export:
    """A written export and its proof; the fields are JSON keys, and numbers of samples are counts.

    ``texts``: texts with equal tokens. ``positions``, ``largest_difference`` and ``mean_difference`` (nats): the
    log-probabilities of the stored weights beside the original's. ``milliseconds_per_token``: CPU time of greedy
    generation, one text at a time on this machine. ``total``, ``before``, ``after``, ``lost``, ``won``: correct outputs
    with a test set, else None. ``parameters`` and ``merged``: after the merge of an adapter, its size and base.
    """

    folder: str
    format: str
    bits: int
    files: tuple[str, ...]
    bytes: int
    texts: int
    positions: int
    largest_difference: float
    mean_difference: float
    milliseconds_per_token: float
    notes: tuple[str, ...]
    total: int | None = None
    before: int | None = None
    after: int | None = None
    lost: int | None = None
    won: int | None = None
    parameters: int | None = None
    merged: str | None = None


class Exporter(Protocol):
    """Writer of one format. A subclass defines ``write`` and ``open``; the other members have defaults.

    ``name``: of the registry. ``bits``: stored bits per weight; 32 is full precision, the weights as they are.
    """

    name: str
    bits: int

    @property
    def exact(self) -> bool:
        """Whether log-probabilities must be equal: the weights are stored as they are."""
        return self.bits == 32

    def check(self, student: LoadedModel) -> None:
        """Raise ``UserError`` for a model or tokenizer that the format cannot represent exactly."""
        return None

    def write(self, student: LoadedModel, source: Path, folder: Path, full: Path | None = None) -> ExportFiles:
        """Write the files to ``folder``. ``source``: the model folder that ``student`` was opened from.

        ``full``: the same model written at 32 bits, to make fewer bits from without another trace.
        """
        ...

    def open(self, folder: Path, student: LoadedModel) -> AbstractContextManager[Runtime]:
        """Open the written files; the tokenizer of ``student`` is used where the format has none of its own."""
        ...


def check_bits(name: str, bits: int | None, allowed: Sequence[int]) -> int:
    """``bits``, or the first of ``allowed`` when it is None. ``UserError`` for a width that the format has not."""
    if bits is None:
        return allowed[0]
    if bits not in allowed:
        raise UserError(
            f"the format {name} has no weights of this width",
            where="--bits",
            given=bits,
            allowed=", ".join(map(str, allowed)),
        )
    return bits


def missing_package(name: str, package: str, extra: str) -> UserError:
    """The error for a package that the format needs and that is not installed."""
    hint = f"pip install 'gradatim[{extra}]'"
    return UserError(f"the format {name} needs the package {package!r}", where="--to", given=name, hint=hint)


def missing_program(name: str, program: str, hint: str) -> UserError:
    """The error for a program that the format needs and that is not installed."""
    return UserError(f"the format {name} needs the program {program!r}", where="--to", given=name, hint=hint)


def not_exact(name: str, reason: str, given: Any, hint: str) -> UserError:
    """The error for a model that the format cannot represent exactly; ``hint`` names a format that can."""
    return UserError(f"{name}: {reason}", where="--to", given=given, hint=hint)
