"""Node.js as a ``Runtime``: the scripts and weights of an exported page, read from the page itself.

The process reads questions from its standard input, a line of JSON each: ``{text}`` for tokens, ``{prompt, limit}`` for
a greedy continuation, ``{}`` for the processor time. It answers with a line of JSON each.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import WorkFailed
from .exporter import CANDIDATES, Generation, Runtime

NODE = shutil.which("node")

PROGRAM = r"""
'use strict';
const page = require('fs').readFileSync(process.argv[1], 'utf8');
const script = /<script data-name="student\.js">([\s\S]*?)<\/script>/.exec(page)[1];
const weights = /<script type="text\/plain" data-student="[^"]*">([\s\S]*?)<\/script>/.exec(page)[1];
require('vm').runInThisContext(`${script}\nglobalThis.student = student;`);
const model = student.open(Uint8Array.from(Buffer.from(weights, 'base64')).buffer);
const candidates = Number(process.argv[2]);

function generate({ prompt, limit }) {
  const tokens = [], ids = [], logs = [];
  for (const { id, shares } of student.extend(model, prompt, { limit })) {
    const likeliest = student.likeliest(shares, candidates);
    tokens.push(id);
    ids.push(likeliest.map(([token]) => token));
    logs.push(likeliest.map(([, share]) => (share > 0 ? Math.log(share) : -1e3)));
  }
  return { tokens, ids, logs };
}

function encode(text) {
  try {
    return { tokens: model.codec.encode(text) };
  } catch (error) {
    if (error instanceof RangeError) return { tokens: [] };
    throw error;
  }
}

require('readline').createInterface({ input: process.stdin }).on('line', (line) => {
  const question = JSON.parse(line);
  let answer;
  if ('text' in question) answer = encode(question.text);
  else if ('prompt' in question) answer = generate(question);
  else answer = { seconds: (process.cpuUsage().user + process.cpuUsage().system) / 1e6 };
  process.stdout.write(`${JSON.stringify(answer)}\n`);
});
"""


@contextmanager
def serve(page: Path) -> Iterator[Runtime]:
    """The model of the page in a Node.js process that ends with the block."""
    assert NODE is not None
    process = subprocess.Popen(
        [NODE, "-e", PROGRAM, str(page), str(CANDIDATES)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    try:
        yield Node(process)
    finally:
        process.kill()
        process.communicate()


@dataclass(frozen=True)
class Node(Runtime):
    """A Node.js process with the model of a page."""

    process: subprocess.Popen[str]

    def encode(self, text: str) -> list[int]:
        return list(self._ask(text=text)["tokens"])

    def generate(self, prompt: Sequence[int], limit: int, *, draft: Sequence[int] = ()) -> Generation:
        reply = self._ask(prompt=list(prompt), limit=limit)
        return Generation(
            np.array(reply["tokens"], dtype=np.int64),
            np.array(reply["ids"], dtype=np.int64),
            np.array(reply["logs"], dtype=np.float64),
        )

    def cpu_seconds(self) -> float:
        return float(self._ask()["seconds"])

    def _ask(self, **question: Any) -> Mapping[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.process.kill()
            lines = self.process.communicate()[1].strip().splitlines()
            reason = next((text for text in lines if "Error" in text), lines[-1] if lines else "no message")
            raise WorkFailed("nothing was written: Node.js ended", where="--to page", given=reason)
        return dict(json.loads(line))
