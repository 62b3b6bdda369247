"""ONNX graphs for ONNX Runtime: one graph from ``input_ids`` (batch, length) to ``logits``, without KV cache.

The graph is traced by ``transformers.exporters``, for any architecture of transformers. Fewer bits are weights alone
(``MatMulNBits``, blocks of 32); activations stay fp32. Dynamic int8 quantizes activations too and is not offered: it
cost up to 3.5 points of accuracy on TinyPy with a student of 0.9M parameters, where 4-bit weights cost 0.2.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from pydantic import Field

from ..model import load
from ..model.architecture import PublishedGPT
from ..model.hardware import quiet
from ..options import strict
from .exporter import Exporter, ExportFiles, Runtime, check_bits, missing_package, not_exact
from .proof import ForwardRuntime

if TYPE_CHECKING:
    from ..model.load import LoadedModel

NAME = "onnx"
FILE = "model.onnx"
BLOCK = 32
"""Weights of a row that share a scale."""
LARGEST_FILE = 3 << 29
"""Bytes of weights in one file; a protocol buffer holds 2 GiB, so larger weights go to a file beside it."""


@strict("the exporter 'onnx'")
def onnx(
    *, bits: Annotated[int | None, Field(description="Bits per weight: 32 (default), 8 or 4.")] = None
) -> Exporter:
    """An ONNX graph for ONNX Runtime."""
    return Onnx(check_bits(NAME, bits, [32, 8, 4]))


@dataclass(frozen=True)
class Onnx(Exporter):
    """The exporter ``onnx``; see the module docstring."""

    bits: int
    name: str = NAME

    def check(self, student: LoadedModel) -> None:
        for package in ("onnx", "onnxscript", "onnxruntime"):
            if find_spec(package) is None:
                raise missing_package(NAME, package, "onnx")

    def write(self, student: LoadedModel, source: Path, folder: Path, full: Path | None = None) -> ExportFiles:
        if full is None:
            _write_graph(fp32_model(student), folder / FILE)
        elif self.bits == 32:
            shutil.copytree(full, folder, dirs_exist_ok=True)
        notes = _quantize((full or folder) / FILE, folder / FILE, self.bits) if self.bits < 32 else ()
        with quiet():
            student.tokenizer.save_pretrained(folder)
            student.model.config.save_pretrained(folder)
        return ExportFiles(tuple(sorted(path.name for path in folder.iterdir())), notes)

    def open(self, folder: Path, student: LoadedModel) -> AbstractContextManager[Runtime]:
        return _open_runtime(folder)


def fp32_model(student: LoadedModel) -> Any:
    """The model on the CPU in fp32, by the classes of transformers alone."""
    model: Any = student.model.as_gpt2() if isinstance(student.model, PublishedGPT) else student.model
    return copy.deepcopy(model).to("cpu", torch.float32).eval()


def _write_graph(model: Any, file: Path) -> None:
    from transformers.exporters.configs import OnnxConfig
    from transformers.exporters.exporter_onnx import OnnxExporter

    # Two rows of several tokens: a dimension of 1 would be traced as a constant.
    inputs: dict[str, Any] = {"input_ids": torch.zeros((2, 7), dtype=torch.int64), "use_cache": False}
    with silent():
        import onnx_ir

        program = OnnxExporter().export(model, inputs, config=OnnxConfig(dynamic=True)).program
        size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
        onnx_ir.save(program, str(file), external_data=f"{file.name}.data" if size > LARGEST_FILE else None)


def _quantize(source: Path, file: Path, bits: int) -> tuple[str, ...]:
    """Write the graph with quantized weights; a note where matrices stay fp32. ``UserError`` when all would."""
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    with silent():
        quantizer = MatMulNBitsQuantizer(onnx.load(str(source)), bits=bits, block_size=BLOCK, is_symmetric=True)
        quantizer.process()
        graph = quantizer.model.model.graph
        constants = {tensor.name for tensor in graph.initializer}
        plain = sum(node.op_type in ("MatMul", "Gemm") and node.input[1] in constants for node in graph.node)
        if not any(node.op_type == "MatMulNBits" for node in graph.node):
            reason = "ONNX Runtime quantizes no matrix of this architecture"
            raise not_exact(NAME, reason, f"{bits} bits", "--bits 32, or --to gguf")
        external = quantizer.model.model.ByteSize() > LARGEST_FILE
        quantizer.model.save_model_to_file(str(file), use_external_data_format=external)
    return (f"{plain} matrices stay fp32: ONNX Runtime quantizes products without a bias alone",) if plain else ()


@contextmanager
def silent() -> Iterator[None]:
    """No text of the tracing libraries on the standard streams, no log lines, no warnings."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), quiet():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextmanager
def _open_runtime(folder: Path) -> Iterator[Runtime]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(folder / FILE), options, providers=["CPUExecutionProvider"])

    def forward(tokens: Any) -> Any:
        return np.asarray(session.run(["logits"], {"input_ids": tokens[None]})[0])[0]

    tokenizer = load.open_tokenizer_of(folder, local_files_only=True)
    yield ForwardRuntime(forward, tokenizer, int(tokenizer.eos_token_id))
