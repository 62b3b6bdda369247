"""ExecuTorch programs for phones and embedded devices (XNNPACK), by ``transformers.exporters``.

The program has one method, ``forward``, from ``input_ids`` (1, length) to logits. The length is fixed, that of the
model's context: shorter texts are padded on the right, which causal attention does not see.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field

from ..model import load
from ..model.hardware import quiet
from ..options import strict
from .exporter import Exporter, ExportFiles, Runtime, check_bits, missing_package
from .onnx import fp32_model, silent
from .proof import ForwardRuntime

if TYPE_CHECKING:
    from ..model.load import LoadedModel

NAME = "executorch"
FILE = "model.pte"


@strict("the exporter 'executorch'")
def executorch(*, bits: Annotated[int | None, Field(description="Bits per weight: 32 alone.")] = None) -> Exporter:
    """An ExecuTorch program."""
    return ExecuTorch(check_bits(NAME, bits, [32]))


@dataclass(frozen=True)
class ExecuTorch(Exporter):
    """The exporter ``executorch``; see the module docstring."""

    bits: int
    name: str = NAME

    def check(self, student: LoadedModel) -> None:
        if find_spec("executorch") is None:
            raise missing_package(NAME, "executorch", "executorch")

    def write(self, student: LoadedModel, source: Path, folder: Path, full: Path | None = None) -> ExportFiles:
        from transformers.exporters.configs import ExecutorchConfig
        from transformers.exporters.exporter_executorch import ExecutorchExporter

        length = int(student.model.config.max_position_embeddings)
        inputs: dict[str, Any] = {"input_ids": torch.zeros((1, length), dtype=torch.int64), "use_cache": False}
        with silent():
            exported = ExecutorchExporter().export(fp32_model(student), inputs, config=ExecutorchConfig())
            ExecutorchExporter.save_program(exported.program, folder / FILE)
        with quiet():
            student.tokenizer.save_pretrained(folder)
            student.model.config.save_pretrained(folder)
        return ExportFiles(
            tuple(sorted(path.name for path in folder.iterdir())), (f"texts of {length} tokens, padded",)
        )

    def open(self, folder: Path, student: LoadedModel) -> AbstractContextManager[Runtime]:
        return _open_runtime(folder, int(student.model.config.max_position_embeddings))


@contextmanager
def _open_runtime(folder: Path, length: int) -> Iterator[Runtime]:
    with silent():
        from executorch.runtime import Runtime as Program

        method = Program.get().load_program(str(folder / FILE)).load_method("forward")

    def forward(tokens: Any) -> Any:
        padded = torch.zeros((1, length), dtype=torch.int64)
        padded[0, : len(tokens)] = torch.from_numpy(tokens)
        return method.execute([padded])[0][0, : len(tokens)].numpy()

    tokenizer = load.open_tokenizer_of(folder, local_files_only=True)
    yield ForwardRuntime(forward, tokenizer, int(tokenizer.eos_token_id))
