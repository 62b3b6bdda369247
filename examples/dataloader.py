"""A training loop of your own along a curriculum, with resume at the exact sample."""

import json

import torch
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM

from gradatim import CurriculumSampler
from gradatim.programs import generate

programs = generate(300, levels=("1.1", "2.1", "2.2"), seed=1).table.select(["prompt", "answer"]).to_pylist()
texts = [row["prompt"] + row["answer"] for row in programs]
codes = {letter: code for code, letter in enumerate(sorted(set("".join(texts))), start=1)}


def collate(texts: list[str]) -> torch.Tensor:
    rows = [torch.tensor([codes[letter] for letter in text]) for text in texts]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def curriculum() -> CurriculumSampler:
    return CurriculumSampler(programs, "om", "hybrid", epochs=1, batch=16)


size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
model = LlamaForCausalLM(LlamaConfig(vocab_size=len(codes) + 1, **size))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
sampler = curriculum()
print(sampler)
for step, batch in enumerate(DataLoader(texts, batch_size=16, sampler=sampler, collate_fn=collate), start=1):
    loss = model(batch, labels=batch.masked_fill(batch == 0, -100)).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step == 10:  # beside a checkpoint of the model and the optimizer
        saved = json.dumps(sampler.state_dict(position=step * 16))
print(f"{step} steps, loss {loss.item():.2f}")

resumed = curriculum()
resumed.load_state_dict(json.loads(saved))
print(f"a resumed run would learn the last {len(list(resumed))} of {len(resumed)} samples")
