"""Is the preset ``paper`` the published model, and is ``paper/*`` its optimizer? Compared with the module as described.

The description: 60 characters and 256 positions in 120 dimensions; six pre-norm blocks of six heads with separate
matrices for queries, keys and values; GELU, four times as wide inside; LayerNorm without bias; a head that shares
nothing with the embedding. A bias have the projection after attention and the head alone, which is what gives the
published count: 60·120 + 256·120 (embeddings) + 6·(3·120² + 120² + 120 + 8·120² + 2·120) (blocks) + 120 (last norm)
+ 60·120 + 60 (head) = 1,084,260.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from gradatim.errors import RecipeError
from gradatim.experiment.recipe import load
from gradatim.experiment.recipe_files import names
from gradatim.model.architecture import PublishedGPT, create, freeze, trainable_parameters
from gradatim.model.load import load_student, open_weights
from gradatim.model.settings import OptimizerSettings
from gradatim.training.optimizers import make_optimizers

pytestmark = pytest.mark.xdist_group("elsewhere")  # one process for the files that open models elsewhere

WIDTH, HEADS, LAYERS, CONTEXT, CHARACTERS = 120, 6, 6, 256, 60
SPECIAL = {"pad_token_id": 0, "eos_token_id": 1}


class Norm(nn.Module):
    """LayerNorm with a weight and no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(state, (WIDTH,), self.weight, None, 1e-5)


class Attention(nn.Module):
    """Causal attention with a matrix for each of queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        self.projection = nn.Linear(WIDTH, WIDTH)

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        size, length, _ = state.shape
        parts = (
            layer(state).view(size, length, HEADS, WIDTH // HEADS).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        query, key, value = parts
        scores = query @ key.transpose(2, 3) / math.sqrt(WIDTH // HEADS)
        hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
        mixed = scores.masked_fill(hidden, -math.inf).softmax(-1) @ value
        return self.projection(mixed.transpose(1, 2).reshape(size, length, WIDTH))


class Block(nn.Module):
    """One layer: attention and MLP, each after a norm and added to what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention, self.before_mlp = Norm(), Norm()
        self.attention = Attention()
        self.up = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.down = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        state = state + self.attention(self.before_attention(state))
        return state + self.down(functional.gelu(self.up(self.before_mlp(state))))


class Described(nn.Module):
    """The published model as its description says."""

    def __init__(self) -> None:
        super().__init__()
        self.characters = nn.Embedding(CHARACTERS, WIDTH)
        self.positions = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm = Norm()
        self.head = nn.Linear(WIDTH, CHARACTERS)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        state = self.characters(numbers) + self.positions(torch.arange(numbers.shape[1]))
        logits: torch.Tensor = self.head(self.norm(self.blocks(state)))
        return logits


def paper(seed: int = 0, vocabulary: int = CHARACTERS) -> PublishedGPT:
    model = create("paper", vocabulary=vocabulary, context=CONTEXT, special=SPECIAL, seed=seed)
    freeze(model)
    assert isinstance(model, PublishedGPT)
    return model.eval()


def take_over(ours: PublishedGPT, theirs: Described) -> dict[str, torch.Size]:
    """Give ``ours`` the weights of ``theirs``; the shapes taken, by the names of ours, as torch lays matrices out."""
    taken: dict[str, torch.Tensor] = {
        "transformer.wte.weight": theirs.characters.weight,
        "transformer.wpe.weight": theirs.positions.weight,
        "transformer.ln_f.weight": theirs.norm.weight,
        "lm_head.weight": theirs.head.weight,
        "lm_head.bias": theirs.head.bias,
    }
    for place, block in enumerate(theirs.blocks):
        assert isinstance(block, Block)
        attention = block.attention
        joined = torch.cat([attention.query.weight, attention.key.weight, attention.value.weight])
        taken |= {
            f"transformer.h.{place}.{name}": value
            for name, value in {
                "ln_1.weight": block.before_attention.weight,
                "ln_2.weight": block.before_mlp.weight,
                "attn.c_attn.weight": joined.T,
                "attn.c_proj.weight": attention.projection.weight.T,
                "attn.c_proj.bias": attention.projection.bias,
                "mlp.c_fc.weight": block.up.weight.T,
                "mlp.c_proj.weight": block.down.weight.T,
            }.items()
        }
    learnt = {name: value for name, value in ours.named_parameters() if value.requires_grad}
    assert {name: value.shape for name, value in learnt.items()} == {name: value.shape for name, value in taken.items()}
    with torch.no_grad():
        for name, value in taken.items():
            learnt[name].copy_(value)
    return {name: value.shape for name, value in taken.items()}


def some_text() -> torch.Tensor:
    return torch.randint(0, CHARACTERS, (3, CONTEXT + 1), generator=torch.Generator().manual_seed(4))


def loss_of(logits: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())


def test_the_preset_paper_has_the_published_count_and_shapes() -> None:
    ours, theirs = paper(), Described()
    take_over(ours, theirs)
    counted = sum(value.numel() for value in theirs.parameters())
    assert trainable_parameters(ours) == counted == 1_084_260
    frozen = [value for value in ours.parameters() if not value.requires_grad]
    assert frozen
    assert not any(value.any() for value in frozen)


def test_on_the_same_weights_the_loss_and_its_gradient_are_those_of_the_described_module() -> None:
    torch.manual_seed(3)
    ours, theirs, text = paper(), Described(), some_text()
    take_over(ours, theirs)
    losses = loss_of(ours(text[:, :-1]).logits, text), loss_of(theirs(text[:, :-1]), text)
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-6)
    for loss in losses:
        loss.backward()
    for one, other in (
        (ours.lm_head.bias.grad, theirs.head.bias.grad),
        (ours.transformer.h[0].attn.c_proj.bias.grad, theirs.blocks[0].attention.projection.bias.grad),  # type: ignore[union-attr]
        (ours.transformer.wte.weight.grad, theirs.characters.weight.grad),
    ):
        assert one is not None
        assert other is not None
        assert torch.allclose(one, other, atol=1e-6)


def test_first_weights_are_torchs_own() -> None:
    """By each tensor's own spread; the described module is made of torch's layers, so it says what is right."""
    torch.manual_seed(5)
    theirs, ours, drawn = Described(), paper(), paper(seed=1)
    before = {name: value.clone() for name, value in ours.named_parameters()}
    take_over(ours, theirs)
    for name, value in ours.named_parameters():
        if value.requires_grad and "ln_" not in name:
            assert before[name].std().item() == pytest.approx(value.std().item(), rel=0.25), name
            if "wte" not in name and "wpe" not in name:
                inputs = WIDTH if "mlp.c_proj" not in name else 4 * WIDTH
                assert 0.9 / math.sqrt(inputs) < before[name].abs().max().item() <= 1 / math.sqrt(inputs), name
    assert before["transformer.wte.weight"].std().item() == pytest.approx(1, rel=0.05)
    assert not torch.equal(drawn.lm_head.weight, before["lm_head.weight"])


def test_a_saved_paper_model_opens_as_a_plain_gpt2_with_the_same_logits(
    tmp_path: Path, elsewhere: Callable[..., None]
) -> None:
    model, text = paper(), some_text()
    with torch.no_grad():
        model.lm_head.bias.normal_(generator=torch.Generator().manual_seed(1))
        model.save_pretrained(tmp_path)
        torch.save((text, model(text[:, :-1]).logits), tmp_path / "expected.pt")
    code = f"""
import torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained({str(tmp_path)!r}).eval()
text, expected = torch.load({str(tmp_path / "expected.pt")!r})
assert type(model).__name__ == "GPT2LMHeadModel"
assert torch.allclose(model(text[:, :-1]).logits, expected, atol=1e-4)
"""
    elsewhere(code, tmp_path)


def test_a_saved_paper_model_goes_on_with_the_very_same_numbers(tmp_path: Path) -> None:
    model = paper()
    model.save_pretrained(tmp_path)
    opened = open_weights(tmp_path, local_files_only=True)
    assert isinstance(opened, PublishedGPT)
    assert {name: value.tolist() for name, value in opened.named_parameters()} == {
        name: value.tolist() for name, value in model.named_parameters()
    }


def test_without_the_file_of_its_head_it_is_the_plain_model(tmp_path: Path) -> None:
    model, text = paper(), some_text()
    model.save_pretrained(tmp_path)
    (tmp_path / "head.safetensors").unlink()
    opened = open_weights(tmp_path, local_files_only=True)
    assert not isinstance(opened, PublishedGPT)
    with torch.no_grad():
        assert torch.allclose(opened(text[:, :9]).logits, model(text[:, :9]).logits, atol=1e-4)


def test_a_model_of_the_earlier_preset_still_opens(tmp_path: Path) -> None:
    from gradatim.model.tokenizer import character_tokenizer

    tokenizer = character_tokenizer(["ab"])
    old = create("gpt2-tied", vocabulary=len(tokenizer), context=16, special=SPECIAL, seed=0)
    freeze(old)
    assert trainable_parameters(old) == (len(tokenizer) + 16) * 120 + 6 * (12 * 120**2 + 2 * 120) + 120
    old.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    opened = load_student(tmp_path).model
    assert type(opened).__name__ == "GPT2LMHeadModel"
    assert opened.lm_head.weight is opened.transformer.wte.weight


def test_more_tokens_than_dimensions_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"at most 120 tokens.*gpt2-tied"):
        paper(vocabulary=121)
    assert paper(vocabulary=120).config.vocab_size == 120


def optimized(step: Callable[[], object], model: PublishedGPT, text: torch.Tensor) -> list[float]:
    losses = []
    for _ in range(3):
        loss = loss_of(model(text[:, :-1]).logits, text)
        loss.backward()
        losses.append(loss.item())
        step()
    return losses


@pytest.mark.parametrize("name", [name for name in names() if name.startswith("paper/")] + ["smoke/paper"])
def test_the_paper_recipes_use_the_published_optimizer(name: str) -> None:
    train = load(name).train
    given = train.optimizer
    assert (given.name, given.learning_rate, given.betas) == ("adamw", 1e-3, (0.9, 0.999))
    assert (given.weight_decay, given.weight_decay_on, train.max_grad_norm) == (0.01, "all", 0)
    assert load(name).student.preset == "paper"


def test_three_steps_are_those_of_torchs_default_adamw() -> None:
    text = some_text()[:, :33]
    settings = load("paper/baseline").train.optimizer
    ours, theirs = paper(), paper()
    parts = make_optimizers(ours, settings)
    default = torch.optim.AdamW([value for value in theirs.parameters() if value.requires_grad], lr=1e-3)

    def step() -> None:
        default.step()
        default.zero_grad()

    assert optimized(lambda: parts.step(1.0), ours, text) == pytest.approx(optimized(step, theirs, text), rel=1e-5)
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6), name


@pytest.mark.parametrize("decayed", ["matrices", "all"])
def test_weight_decay_falls_where_it_is_told_to(decayed: str) -> None:
    settings = OptimizerSettings("adamw", weight_decay=0.1, weight_decay_on=decayed)  # type: ignore[arg-type]
    model = paper()
    (part,) = make_optimizers(model, settings).optimizers
    rates = {id(value): group["weight_decay"] for group in part.param_groups for value in group["params"]}
    for name, value in model.named_parameters():
        if value.requires_grad:
            assert rates[id(value)] == (0.1 if value.ndim >= 2 or decayed == "all" else 0.0), name
