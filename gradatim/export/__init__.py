"""Exports of trained models to other programs, each proved before it is kept.

``EXPORTERS`` has the formats by name. ``write.export_model`` writes one: the model is opened, written to a temporary
folder, opened again by the program that users run it with (``exporter.Runtime``), compared with the original
(``proof``), and moved to its place with a model card (``model_card``). ``hub`` uploads a folder; ``lm_eval`` writes a
task of lm-evaluation-harness.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..lazy import lazy_names
from ..registry import Contract, Registry
from .exporter import Exporter

__all__ = ["EXPORTERS"]

EXPORTERS: Registry[Callable[..., Any]] = Registry(
    "exporter", contracts=(Contract(Exporter, ("name", "bits", "write", "open")),)
)
EXPORTERS.lazy("hf", "gradatim.export.hf:hf", "Hugging Face folder, for transformers, vLLM and lm-evaluation-harness")
EXPORTERS.lazy("gguf", "gradatim.export.gguf:gguf", "GGUF file, for llama.cpp, Ollama, LM Studio and phones")
EXPORTERS.lazy("onnx", "gradatim.export.onnx:onnx", "ONNX graph, for ONNX Runtime on servers, browsers and phones")
EXPORTERS.lazy("executorch", "gradatim.export.executorch:executorch", "ExecuTorch program, for phones and devices")
EXPORTERS.lazy("page", "gradatim.export.page:page", "HTML file with a playground, for any browser, without a network")

__getattr__ = lazy_names(__name__)
