"""Seeds and random streams by name.

Every random choice has a stream of its own, derived from a seed of the recipe and the position of the choice (cycle,
stage, pass, sample), not from earlier draws: a resumed run draws the same numbers, and a new choice changes no other.
One exception, kept because keys never change: a last key of 0 equals none, so ``pass_stream(seed, 0)`` is
``order_stream(seed)`` and ``pass_stream(seed, band + 1)`` is ``band_stream(seed, band)``.
The keys of a stream fix all results with its seed, so they never change.

    seeds of a run        ``stage_seed``, ``initialization_seed``, ``attempts_seed``
    samples of a cycle    ``cycle_seed``, ``parents_seed``, ``questions_stream``, ``rejected_stream``
    a stage               ``band_stream``, ``order_stream``, ``probe_stream``, ``quantile_stream``, ``pass_stream``,
                          ``crop_stream``, ``dropout_seed``
    generated texts       ``text_stream``, ``text_index``, ``endpoint_seed``
    evaluation, judges    ``subset_stream``, ``grading_stream``
"""

from __future__ import annotations

import hashlib
import random

from .lazy import np

_INITIALIZATION = 1 << 20
"""A stage number for the weights; a cycle has fewer stages."""
_ATTEMPTS = 1 << 21
"""A stage number for attempts at a cycle's questions; the next one is for attempts at new samples."""
_QUESTIONS = 1 << 22
_PROBE = 1 << 20
"""Keys beyond those of the bands, which are numbered from 1."""
_QUANTILES = 1 << 21
_ANSWER_LOSS = 1 << 23
_SUBSET = 2**64 - 1
"""Keys beyond the indices of texts."""
_GRADING = 2**64 - 2
NUM_SAMPLES_LIMIT = 1 << 20
"""Text indices of one problem, one for each of its samples."""


def stage_seed(seed: int, cycle: int, stage: int) -> int:
    """The seed of a stage, in [0, 2**63), from the run's seed."""
    return int(np.random.SeedSequence([seed, cycle, stage]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def initialization_seed(seed: int) -> int:
    """The seed of the model's initial weights, from the run's seed."""
    return stage_seed(seed, 0, _INITIALIZATION)


def attempts_seed(seed: int, cycle: int, *, new_samples: bool = False) -> int:
    """The seed of the model's attempts after a cycle: at the cycle's questions, or at the next cycle's samples."""
    return stage_seed(seed, cycle, _ATTEMPTS + new_samples)


def cycle_seed(seed: int, cycle: int) -> int:
    """The seed of a cycle's samples, from the data's seed: that seed in the first cycle, as in `gradatim generate`."""
    return seed if cycle == 0 else _hash(f"{seed}/{cycle}", 7)


def parents_seed(seed: int, cycle: int, grade: str) -> int:
    """The seed of the order of a grade's questions as parents of new ones."""
    return _hash(f"{seed}/{cycle}/{grade}", 8)


def questions_stream(seed: int, cycle: int) -> np.random.Generator:
    """The choice of a cycle's questions among its training samples, from the data's seed."""
    return _generator(seed, cycle, _QUESTIONS)


def rejected_stream(seed: int, sample: str) -> random.Random:
    """The choice of the rejected answer of the sample with the id ``sample``."""
    return random.Random(_hash(f"{seed}/{sample}", 8))


def band_stream(seed: int, band: int) -> np.random.Generator:
    """The choice of a stage's samples in one band, from the stage's seed."""
    return _generator(seed, band + 1)


def order_stream(seed: int) -> np.random.Generator:
    """The order of a stage's samples."""
    return _generator(seed, 0)


def probe_stream(seed: int) -> np.random.Generator:
    """The choice of the samples of the probe after a stage."""
    return _generator(seed, _PROBE)


def answer_loss_stream(seed: int) -> np.random.Generator:
    """The choice of the samples whose answers are measured before training."""
    return _generator(seed, _ANSWER_LOSS)


def quantile_stream(seed: int) -> np.random.Generator:
    """The order of equally difficult samples in the quantiles of a stage."""
    return _generator(seed, _QUANTILES)


def pass_stream(seed: int, number: int, chunk: int | None = None) -> np.random.Generator:
    """The permutation of a stage's samples in pass ``number``, or of the rows packed from one ``chunk`` of it."""
    return _generator(seed, number, 0 if chunk is None else chunk + 1)


def crop_stream(seed: int, step: int) -> np.random.Generator:
    """The random crops of a stage's batch ``step``."""
    return _philox(seed, step)


def dropout_seed(seed: int, step: int, rank: int) -> int:
    """The seed, in [0, 2**63), of torch's generators for a step of one of several processes, from the stage's seed."""
    return _hash(f"{seed}/{step}/{rank}", 8) >> 1


def text_stream(seed: int, index: int) -> np.random.Generator:
    """The sampling of text ``index``: one uniform number for each new token."""
    return _philox(seed % 2**64, index)


def text_index(problem: int, sample: int) -> int:
    """The index of sample number ``sample`` for problem number ``problem``."""
    return problem * NUM_SAMPLES_LIMIT + sample


def endpoint_seed(seed: int, problem: int, sample: int) -> int:
    """The seed, in [0, 2**31), of a request to an endpoint for one sample of a problem."""
    return (seed * 1_000_003 + problem * 1009 + sample) % (1 << 31)


def subset_stream(seed: int) -> np.random.Generator:
    """The choice of the items of an evaluation with a limit."""
    return _philox(seed % 2**64, _SUBSET)


def grading_stream(seed: int) -> np.random.Generator:
    """The choice of the questions that a teacher grades for a scoring judge."""
    return _philox(seed % 2**64, _GRADING)


def _generator(*entropy: int) -> np.random.Generator:
    return np.random.default_rng(entropy)


def _philox(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array(key, dtype=np.uint64)))


def _hash(text: str, size: int) -> int:
    """A number of ``size`` bytes, the BLAKE2b digest of ``text``."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=size).digest(), "little")
