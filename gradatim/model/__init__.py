"""Models: presets, architectures, tokenizers, prompt formats, loading and export."""

from __future__ import annotations

from ..lazy import lazy_names

__getattr__ = lazy_names(__name__)
