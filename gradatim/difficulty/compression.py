"""How little does a program repeat itself?

Raw DEFLATE (no header, level 9) on its UTF-8 bytes. ``ratio`` is compressed over original size, the static signal
that arXiv 2506.11300 found among the best for web text. A compressor needs a few hundred bytes before it finds
anything to share, so on TinyPy programs (about 60 bytes) the ratio mostly says how short they are, the shorter the
"harder": there, choose ``bytes``, the compressed size itself, which grows with what a program has to say.
"""

from __future__ import annotations

import zlib
from typing import Literal

from ..options import strict
from .program import PerText

__all__ = ["compression"]


def _bytes(text: str) -> float:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return float(len(deflate.compress(text.encode("utf-8", "surrogatepass"))) + len(deflate.flush()))


def _ratio(text: str) -> float:
    return _bytes(text) / max(1, len(text.encode("utf-8", "surrogatepass")))


@strict("the difficulty 'compression'")
def compression(*, unit: Literal["ratio", "bytes"] = "ratio") -> PerText:
    """How little a program can be compressed: compressed size over its size, or the compressed size alone."""
    return PerText(_ratio if unit == "ratio" else _bytes)
