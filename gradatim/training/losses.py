"""What is a wrong prediction worth, as a formula?

Pure functions of tensors: cross-entropy, preferences between two answers, divergences between two models. All sums are
computed in fp32. Nothing here knows of batches, models or stages.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

__all__ = ["divergence", "pair_sums", "preference", "token_losses", "token_weights"]


def token_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy in nats per place, fp32, shape of ``labels``; 0 where the label is -100.

    ``logits``: (size, length, vocabulary).
    """
    flat = functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="none", ignore_index=-100)
    return flat.view_as(labels)


def token_weights(labels: torch.Tensor, answer: torch.Tensor, other_weight: float) -> torch.Tensor:
    """1 for tokens of an answer, ``other_weight`` for all others, 0 where there is no prediction; fp32.

    ``next_token`` is ``other_weight`` 1; ``answer_only`` is 0.
    """
    weights = torch.where(answer, 1.0, other_weight)
    return torch.where(labels == -100, 0.0, weights)


def pair_sums(values: torch.Tensor, pairs: torch.Tensor, second: torch.Tensor, count: int) -> torch.Tensor:
    """The sums of ``values`` over the first and the second answer of each pair, shape (count, 2), fp32.

    ``values``, ``pairs`` (number of the pair, -1 for none) and ``second`` (bool) have one shape.
    """
    inside = pairs >= 0
    place = 2 * pairs[inside] + second[inside].long()
    empty = torch.zeros(2 * count, dtype=torch.float32, device=values.device)
    return empty.index_add(0, place, values[inside].float()).view(count, 2)


def preference(margins: torch.Tensor, target: float = 0.0) -> torch.Tensor:
    """-log sigmoid(margin - target) of each pair, in nats.

    With margin = beta x (log-ratio of the right answer - log-ratio of the faulty one), ratios to a reference, this is
    DPO (arXiv 2305.18290, eq. 7). With mean log-probabilities per token in place of ratios, and ``target`` = gamma, it
    is SimPO (arXiv 2405.14734, eq. 6).
    """
    return -functional.logsigmoid(margins - target)


def divergence(student: torch.Tensor, teacher: torch.Tensor, kind: str, interpolation: float) -> torch.Tensor:
    """How far two next-token distributions lie apart, nats, shape (places,); 0 where they are equal.

    ``student``, ``teacher``: logits (places, vocabulary), q and p below; i = ``interpolation``.
    ``jsd``: i KL(p | m) + (1 - i) KL(q | m), m = i p + (1 - i) q (GKD, arXiv 2306.13649, eq. 1).
    ``skewed_forward``: KL(p | i p + (1 - i) q). ``skewed_reverse``: KL(q | (1 - i) p + i q). Both are DistiLLM's (arXiv
    2402.03898).
    """
    q, p = (torch.log_softmax(logits.float(), dim=-1) for logits in (student, teacher))
    if kind == "skewed_forward":
        return _kl(p, _mixed(p, q, interpolation))
    if kind == "skewed_reverse":
        return _kl(q, _mixed(q, p, interpolation))
    middle = _mixed(p, q, interpolation)
    return interpolation * _kl(p, middle) + (1 - interpolation) * _kl(q, middle)


def _mixed(one: torch.Tensor, other: torch.Tensor, share: float) -> torch.Tensor:
    """log(``share`` exp(``one``) + (1 - ``share``) exp(``other``))."""
    if share == 0:
        return other
    return torch.logaddexp(one + math.log(share), other + math.log1p(-share))


def _kl(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """KL(one | other) of log-probabilities, summed over the vocabulary."""
    return (one.exp() * (one - other)).sum(dim=-1)
