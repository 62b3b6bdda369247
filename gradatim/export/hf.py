"""Plain Hugging Face folders, which transformers opens without this package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field

from ..model import load
from ..model.architecture import PublishedGPT, sliding_window_of
from ..model.hardware import quiet
from ..model.hub import is_adapter
from ..options import strict
from .exporter import Exporter, ExportFiles, Runtime, check_bits
from .proof import ForwardRuntime

if TYPE_CHECKING:
    from ..model.load import LoadedModel

NAME = "hf"
WINDOWS = (
    "layers with sliding windows: transformers reads them; vLLM needs --model-impl transformers, as its own Qwen3 "
    "refuses the model; SGLang ignores the windows, so that its texts are wrong"
)
"""The note about a student whose windows some servers do not read."""


@strict("the exporter 'hf'")
def hf(
    *,
    bits: Annotated[
        int | None, Field(description="Bits per weight: 32 (default, the weights as stored) or 16.")
    ] = None,
    merge: Annotated[bool, Field(description="Merge a LoRA adapter into its base; 16 bits imply it.")] = False,
    dtype: Annotated[
        str | None, Field(description="Type of merged weights: fp32, bf16 or fp16; null: that of the base.")
    ] = None,
) -> Exporter:
    """A plain Hugging Face folder."""
    return HuggingFace(check_bits(NAME, bits, [32, 16]), merge, dtype)


@dataclass(frozen=True)
class HuggingFace(Exporter):
    """The exporter ``hf``. Without ``merge`` an adapter stays an adapter, which needs its base."""

    bits: int
    merge: bool = False
    dtype: str | None = None
    name: str = NAME

    @property
    def exact(self) -> bool:
        """A merged adapter is rounded to the type of the base's weights."""
        return self.bits == 32 and not self.merge

    def write(self, student: LoadedModel, source: Path, folder: Path, full: Path | None = None) -> ExportFiles:
        if self.bits == 32:
            load.export(source, folder, merge=self.merge, dtype=self.dtype)
        else:
            _write_half(student, source, folder)
        notes = (WINDOWS,) if sliding_window_of(student.model) else ()
        return ExportFiles(tuple(sorted(path.name for path in folder.iterdir())), notes)

    def open(self, folder: Path, student: LoadedModel) -> AbstractContextManager[Runtime]:
        return _open_runtime(folder, student)


def _write_half(student: LoadedModel, source: Path, folder: Path) -> None:
    import copy

    model: Any = student.model.as_gpt2() if isinstance(student.model, PublishedGPT) else student.model
    with quiet():
        copy.deepcopy(model).to(torch.float16).save_pretrained(folder)
        student.tokenizer.save_pretrained(folder)


@contextmanager
def _open_runtime(folder: Path, student: LoadedModel) -> Iterator[Runtime]:
    model: Any = load.load_student(folder).model if is_adapter(folder) else load.open_as_transformers(folder)

    @torch.inference_mode()
    def forward(tokens: Any) -> Any:
        return model(input_ids=torch.from_numpy(tokens)[None], use_cache=False).logits[0].float().numpy()

    tokenizer = load.open_tokenizer_of(folder, local_files_only=True)
    yield ForwardRuntime(forward, tokenizer, int(tokenizer.eos_token_id))
