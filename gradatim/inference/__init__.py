"""Inference: decoding, log-likelihoods and probes of a trained model."""

from __future__ import annotations

from ..lazy import lazy_names

__getattr__ = lazy_names(__name__)
