"""Self-contained HTML pages: a model to try in a browser, without a server, a network or an installation.

The page is that of ``gradatim show`` for one model: its forward pass, tokenizer and TinyPy interpreter are JavaScript
in the file, its weights base64. The proof reads the page's own scripts and weights in Node.js (``node``).
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ..options import strict
from ..record import write_atomically
from ..show import weights
from ..show.page import model_page
from .exporter import Exporter, ExportFiles, Runtime, check_bits, missing_program, not_exact
from .node import NODE, serve

if TYPE_CHECKING:
    from ..model.load import LoadedModel

NAME = "page"
FILE = "page.html"
BITS: tuple[weights.Bits, ...] = (8, 16, 32)


@strict("the exporter 'page'")
def page(
    *, bits: Annotated[int | None, Field(description="Bits per weight: 8 (default), 16 or 32.")] = None
) -> Exporter:
    """An HTML page with a playground, which computes the model by itself."""
    return Page(check_bits(NAME, bits, BITS))


@dataclass(frozen=True)
class Page(Exporter):
    """The exporter ``page``; see the module docstring."""

    bits: int
    name: str = NAME

    def check(self, student: LoadedModel) -> None:
        if NODE is None:
            raise missing_program(NAME, "node", "apt-get install nodejs")

    def write(self, student: LoadedModel, source: Path, folder: Path, full: Path | None = None) -> ExportFiles:
        if reason := weights.unsupported(source):
            raise not_exact(NAME, f"the page cannot compute this model: {reason}", source, "--to gguf, or --to onnx")
        bits = next(bits for bits in BITS if bits == self.bits)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / FILE, model_page(source, bits).encode("utf-8", "backslashreplace"))
        return ExportFiles((FILE,))

    def open(self, folder: Path, student: LoadedModel) -> AbstractContextManager[Runtime]:
        return serve(folder / FILE)
