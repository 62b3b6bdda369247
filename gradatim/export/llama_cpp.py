"""llama.cpp as a ``Runtime``: a server on the loopback interface, from the package xllamacpp."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import ProxyHandler, Request, build_opener

import numpy as np

from .exporter import CANDIDATES, Generation, Runtime

if TYPE_CHECKING:
    from ..model.load import LoadedModel

SECONDS = 600
"""Time limit of a request."""


@contextmanager
def serve(file: Path, student: LoadedModel, threads: int = 0) -> Iterator[Runtime]:
    """The GGUF file in a server that ends with the block. ``threads``: 0 for those of torch."""
    import xllamacpp

    from ..lazy import torch

    config = student.model.config
    settings = xllamacpp.CommonParams()
    settings.model.path = str(file)
    settings.hostnames, settings.port = ["127.0.0.1"], 0
    settings.n_ctx, settings.n_parallel = config.max_position_embeddings, 1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads or torch.get_num_threads()
    settings.offline, settings.ui, settings.verbosity = True, False, 0
    settings.warmup, settings.fit_params = False, False
    server = xllamacpp.Server(settings)
    try:
        yield LlamaCpp(server.listening_address, min(CANDIDATES, config.vocab_size), student.tokenizer.eos_token_id)
    finally:
        del server


@dataclass(frozen=True)
class LlamaCpp(Runtime):
    """A llama.cpp server at ``address``, such as ``http://127.0.0.1:8080``."""

    address: str
    candidates: int
    end: int

    def encode(self, text: str) -> list[int]:
        return list(self._post("/tokenize", content=text, add_special=False, parse_special=False)["tokens"])

    def generate(self, prompt: Sequence[int], limit: int, *, draft: Sequence[int] = ()) -> Generation:
        reply = self._post(
            "/completion",
            prompt=list(prompt),
            n_predict=limit,
            n_probs=self.candidates,
            temperature=0,
            return_tokens=True,
            cache_prompt=False,
        )
        positions = reply["completion_probabilities"]
        tops = [position["top_logprobs"] for position in positions]
        return Generation(
            np.array([position["id"] for position in positions], dtype=np.int64),
            np.array([[top["id"] for top in row] for row in tops], dtype=np.int64),
            np.array([[top["logprob"] for top in row] for row in tops], dtype=np.float64),
        )

    def _post(self, path: str, **content: Any) -> Any:
        request = Request(self.address + path, json.dumps(content).encode(), {"content-type": "application/json"})
        with build_opener(ProxyHandler({})).open(request, timeout=SECONDS) as response:
            return json.load(response)
