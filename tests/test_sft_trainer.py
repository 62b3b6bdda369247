"""TRL's SFTTrainer along a curriculum: it prepares the data itself, and learns it in the sampler's order."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from gradatim import CurriculumMixin, CurriculumSampler
from gradatim.errors import DataError, RecipeError
from gradatim.model.tokenizer import character_tokenizer

pytestmark = [
    pytest.mark.skipif(find_spec("trl") is None, reason="the package trl is not installed"),
    # TRL sets an old name of transformers itself.
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning"),
]

ROWS = 48
TOKENIZER = character_tokenizer(["0123456789 abc"])
TOKENIZER.split_special_tokens = False  # TRL writes the end token into the text


@cache
def recording_trainer() -> type:
    """A trainer that notes the rows of every batch it learns. TRL is imported here: each worker imports this module."""
    from trl import SFTTrainer

    class Recording(CurriculumMixin, SFTTrainer):
        def training_step(self, model: Any, inputs: Any, *rest: Any) -> torch.Tensor:
            self.seen += [int(TOKENIZER.decode(line)[:2]) for line in inputs["input_ids"]]
            self.ends += [int(line[line != -100][-1]) for line in inputs["labels"]]
            return super().training_step(model, inputs, *rest)

    return Recording


def samples() -> Any:
    """Prompts that begin with their row's number; their lengths have nothing to do with it."""
    import datasets

    return datasets.Dataset.from_dict(
        {
            "prompt": [f"{row:02d} {'a' * (row * 5 % 13)}" for row in range(ROWS)],
            "completion": ["b" * (1 + row * 7 % 5) for row in range(ROWS)],
        }
    )


def trainer(folder: Path, schedule: str = "hybrid", **arguments: Any) -> Any:
    """8 samples a step, checkpoints every 4 steps."""
    from trl import SFTConfig

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(TOKENIZER), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    data = samples()
    settings = {
        "num_train_epochs": 1,
        "per_device_train_batch_size": 8,
        "max_length": 64,
        "save_steps": 4,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "bf16": False,
        "dataloader_pin_memory": False,
        **arguments,
    }
    made = recording_trainer()(
        LlamaForCausalLM(config),
        SFTConfig(str(folder), **settings),
        train_dataset=data,
        processing_class=TOKENIZER,
        curriculum=CurriculumSampler(data, [row * 11 % ROWS for row in range(ROWS)], schedule, steps=12, batch=8),
    )
    made.seen, made.ends = [], []
    return made


@pytest.mark.parametrize("schedule", ["fade", pytest.param("hybrid", marks=pytest.mark.slow)])
def test_sft_learns_the_rows_in_the_order_of_the_sampler_and_goes_on_with_the_rest(schedule, tmp_path):
    whole = trainer(tmp_path, schedule)
    whole.train()
    assert whole.seen == list(whole.curriculum)
    assert len(whole.seen) == 96
    assert set(whole.ends) == {TOKENIZER.eos_token_id}
    rest = trainer(tmp_path, schedule, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    rest.train(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))
    assert rest.seen == whole.seen[64:]


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"packing": True, "packing_strategy": "wrapped"}, RecipeError, "packing=True"),
        ({"shuffle_dataset": True}, RecipeError, "the order of the curriculum would be lost; given: shuffle_dataset"),
        ({"max_length": 12}, DataError, r"given: \d+ rows, the curriculum has 48; try: .*without a completion inside"),
        ({"train_sampling_strategy": "group_by_length"}, RecipeError, "train_sampling_strategy=group_by_length"),
    ],
)
def test_what_sft_does_to_the_rows_is_refused_before_anything_is_learnt(arguments, error, says, tmp_path):
    made = trainer(tmp_path, **arguments)
    with pytest.raises(error, match=says):
        made.train()
    assert made.seen == []
