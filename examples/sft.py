"""TRL's SFTTrainer along a curriculum: prompts and completions, the loss on the completions alone."""

import sys

from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM
from trl import SFTConfig, SFTTrainer

from gradatim import CurriculumMixin, CurriculumSampler
from gradatim.model.tokenizer import character_tokenizer
from gradatim.programs import generate


class CurriculumSFT(CurriculumMixin, SFTTrainer):
    """An SFTTrainer with one more argument: ``curriculum``."""


table = generate(300, levels=("1.1", "2.1", "2.2"), seed=1).table
prompts, answers = table["prompt"].to_pylist(), table["answer"].to_pylist()
dataset = Dataset.from_dict({"prompt": prompts, "completion": answers})
tokenizer = character_tokenizer(prompts + answers)
tokenizer.split_special_tokens = False  # TRL writes the end token into the text
size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
config = LlamaConfig(vocab_size=len(tokenizer), **size)
arguments = SFTConfig(
    sys.argv[1] if len(sys.argv) > 1 else "trained", num_train_epochs=1, per_device_train_batch_size=16, max_length=512,
    save_strategy="no", logging_steps=5, report_to="none", disable_tqdm=True, use_cpu=True, bf16=False,
    dataloader_pin_memory=False,
)  # fmt: skip
trainer = CurriculumSFT(
    LlamaForCausalLM(config),
    arguments,
    train_dataset=dataset,
    processing_class=tokenizer,
    curriculum=CurriculumSampler(dataset, "om", "hybrid", epochs=1, batch=16, options={"replay": 0.25}),
)
print(trainer.curriculum)
trainer.train()
print(f"learnt {len(trainer.curriculum)} samples in {trainer.state.global_step} steps")
