"""Tasks of lm-evaluation-harness: the test set and a YAML file for ``lm_eval --include_path``.

The task ``tinypy_output`` is the suite ``output`` (greedy): the same prompts and answers, and an exact match of the
whole completion up to the end token, the steps of a scratchpad included.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..evaluation.statistics import check_samples, text_column
from ..record import write_atomically

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "lm_eval"
TASK = "tinypy_output"
SPLIT = "test"

TASK_FILE = """\
# lm_eval --model hf --model_args pretrained=MODEL --tasks {task} --include_path FOLDER_OF_THIS_FILE
task: {task}
custom_dataset: !function {task}.load
test_split: {split}
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{answer}}}}"
target_delimiter: ""
generation_kwargs:
  until: []
  do_sample: false
  max_gen_toks: {limit}
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1
"""

LOADER = '''\
"""The test set beside this file, wherever the folder lies."""

from pathlib import Path

import datasets


def load(**_):
    file = Path(__file__).with_suffix(".jsonl")
    return {{"{split}": datasets.Dataset.from_json(str(file), keep_in_memory=True)}}
'''


def write_task(folder: Path, samples: pa.Table) -> None:
    """Write the task, its loader and the samples to ``folder``. ``DataError`` for samples without prompt or answer."""
    check_samples(samples)
    folder.mkdir(parents=True, exist_ok=True)
    pairs = list(zip(text_column(samples, "prompt"), text_column(samples, "answer"), strict=True))
    rows = "".join(json.dumps({"prompt": prompt, "answer": answer}) + "\n" for prompt, answer in pairs)
    # A token has at least one character, and the end token follows.
    limit = max(len(answer) for _, answer in pairs) + 2
    write_atomically(folder / f"{TASK}.jsonl", rows.encode())
    write_atomically(folder / f"{TASK}.py", LOADER.format(split=SPLIT).encode())
    write_atomically(folder / f"{TASK}.yaml", TASK_FILE.format(task=TASK, split=SPLIT, limit=limit).encode())
