"""transformers' Trainer along a curriculum; a second start resumes from the last checkpoint."""

import sys
from pathlib import Path

from transformers import DataCollatorForLanguageModeling, LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from gradatim import CurriculumMixin, CurriculumSampler
from gradatim.model.tokenizer import character_tokenizer
from gradatim.programs import generate


class CurriculumTrainer(CurriculumMixin, Trainer):
    """A Trainer with one more argument: ``curriculum``."""


folder = Path(sys.argv[1] if len(sys.argv) > 1 else "trained")
programs = generate(300, levels=("1.1", "2.1", "2.2"), seed=1).table.select(["prompt", "answer"]).to_pylist()
texts = [row["prompt"] + row["answer"] for row in programs]
tokenizer = character_tokenizer(texts)
size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
config = LlamaConfig(vocab_size=len(tokenizer), **size)
arguments = TrainingArguments(
    str(folder), num_train_epochs=1, per_device_train_batch_size=8, gradient_accumulation_steps=2, save_steps=5,
    logging_steps=5, report_to="none", disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False,
)  # fmt: skip
trainer = CurriculumTrainer(
    LlamaForCausalLM(config),
    arguments,
    train_dataset=[{"input_ids": tokenizer(text)["input_ids"]} for text in texts],
    data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    curriculum=CurriculumSampler(programs, "om", "hybrid", epochs=1, batch=16),
)
print(trainer.curriculum)
trainer.train(resume_from_checkpoint=any(folder.glob("checkpoint-*")))
print(f"learnt {len(trainer.curriculum)} samples in {trainer.state.global_step} steps")
