"""Memory and processor time of a plan whose samples do not fit into memory.

    python benchmarks/streaming.py [--rows N] [--programs N] [--metric NAME] [--by NAME] [--duplicates NAME]

A folder of Parquet files with ``--rows`` samples is the source of ``curriculum/hybrid``, and ``gradatim plan --data``
reads, scores, splits and stores them as a run does. The samples are ``--programs`` programs of ``gradatim generate``,
repeated with a first line that numbers the repetition, so that all texts differ. Prints one JSON object: ``peak_mb`` is
the largest resident memory of the command (``ru_maxrss``), ``base_mb`` that of the same command without ``--data``,
``processor_seconds`` user and system time, ``text_mb`` the size of all prompts and answers. With ``--against FOLDER``
the same command is also measured with the package in that folder, such as the checkout of an earlier commit.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

FILE_ROWS = 1_000_000


def write_samples(folder: Path, rows: int, programs: int) -> int:
    """Write ``rows`` samples as Parquet files to ``folder``; the bytes of all texts."""
    source = folder.parent / "programs.parquet"
    gradatim(None, "generate", source, "--count", min(rows, programs), "--seed", 1)
    samples = pq.read_table(source, columns=["prompt", "answer", "level", "language"])
    folder.mkdir()
    text, writer = 0, None
    for number, start in enumerate(range(0, rows, samples.num_rows)):
        part = samples.slice(0, rows - start)
        lines = [pa.scalar(line, pa.large_string()) for line in (f"# {number}\n", "")]
        part = part.set_column(0, "prompt", pc.binary_join_element_wise(lines[0], part["prompt"], lines[1]))
        text += sum(pc.sum(pc.binary_length(part[name])).as_py() for name in ("prompt", "answer"))
        if writer is None or start // FILE_ROWS != (start - samples.num_rows) // FILE_ROWS:
            if writer is not None:
                writer.close()
            writer = pq.ParquetWriter(folder / f"{start:012}.parquet", part.schema, compression="zstd")
        writer.write_table(part)
    if writer is not None:
        writer.close()
    return text


def gradatim(package: Path | None, *arguments: object) -> dict[str, float]:
    """Peak memory and processor time of a command of the package in the folder ``package``, by default this one."""
    environment = {**os.environ, **({} if package is None else {"PYTHONPATH": str(package)})}
    command = [sys.executable, "-m", "gradatim", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment, cwd=package) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return {
        "peak_mb": round(usage.ru_maxrss / 1024),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
    }


def plan(samples: Path, options: argparse.Namespace, package: Path | None) -> dict[str, Any]:
    """The cost of the plan with and without its samples."""
    changes = (
        "data.source=file",
        f"data.path={samples}",
        f"data.duplicates={options.duplicates}",
        f"data.split.by={options.by}",
        f"difficulty.metric={options.metric}",
        "difficulty.bands={names: [easy, medium, hard], quantiles: [0.3, 0.6]}",
        "workers=1",
    )
    command = ("plan", "curriculum/hybrid", "--json", *(word for change in changes for word in ("--set", change)))
    base = gradatim(package, *command, "--no-data")
    return {**gradatim(package, *command, "--data"), "base_mb": base["peak_mb"]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=20_000_000, help="samples")
    parser.add_argument("--programs", type=int, default=500_000, help="generated programs, which are repeated")
    parser.add_argument("--metric", default="size", help="metric of difficulty")
    parser.add_argument("--by", default="text", help="criterion of the split: slice, canonical, text or random")
    parser.add_argument("--duplicates", default="keep", help="duplicates to remove: keep, text or id")
    parser.add_argument("--against", type=Path, help="folder with another version of the package")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        samples = Path(folder) / "samples"
        text = write_samples(samples, options.rows, options.programs)
        result = {
            "rows": options.rows,
            "text_mb": round(text / 1e6),
            "metric": options.metric,
            "by": options.by,
            "duplicates": options.duplicates,
            **plan(samples, options, None),
        }
        if options.against is not None:
            # A version that reads no folder of Parquet files gets one file.
            whole = Path(folder) / "whole.parquet"
            pq.write_table(pq.read_table(samples), whole)
            result["against"] = plan(whole, options, options.against.resolve())
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
