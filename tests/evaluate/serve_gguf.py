"""A server for a Hugging Face folder, ``serve_gguf.py FOLDER PORT``: llama.cpp on a GGUF file that is written first."""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path

import xllamacpp

from gradatim.export import EXPORTERS
from gradatim.model.load import load_student


def main() -> None:
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    student = load_student(folder)
    out = Path(tempfile.mkdtemp())
    exporter = EXPORTERS.make("gguf", options={})
    (file,) = [name for name in exporter.write(student, folder, out).names if name.endswith(".gguf")]
    settings = xllamacpp.CommonParams()
    settings.model.path, settings.hostnames, settings.port = str(out / file), ["127.0.0.1"], port
    settings.n_ctx = student.model.config.max_position_embeddings
    settings.n_parallel = settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    settings.offline, settings.ui, settings.verbosity = True, False, 0
    settings.warmup, settings.fit_params = False, False
    server = xllamacpp.Server(settings)
    signal.sigwait({signal.SIGTERM})
    del server


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    main()
