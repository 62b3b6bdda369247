"""Facts about how a student's texts are written."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from gradatim.errors import DataError
from gradatim.inference.decode import complete, predict_next, uniforms
from gradatim.model.architecture import supports_masking
from gradatim.model.load import load_student
from gradatim.model.tokenizer import bpe_tokenizer, character_tokenizer
from gradatim.stage import Event


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Models this small run slower on two threads, and tests share the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


LETTERS = "abcdefgh \n=+123"
CONTEXT = 48


@pytest.fixture(scope="module")
def tokenizer():
    return character_tokenizer([LETTERS])


def shaped(size: int) -> dict[str, int]:
    rotary = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    return {
        **rotary,
        "intermediate_size": 32,
        "head_dim": 8,
        "vocab_size": size,
        "bos_token_id": 1,
        "eos_token_id": 1,
    }


def make(family: str, size: int):
    """A random model whose choices are sharp enough to vary: its weights are five times the usual ones."""
    torch.manual_seed(3)
    if family == "gpt2":
        config = GPT2Config(
            vocab_size=size, n_positions=CONTEXT, n_embd=24, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=1
        )
        model = GPT2LMHeadModel(config)
    elif family == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**shaped(size), max_position_embeddings=CONTEXT))
    elif family == "windowed":
        window = {
            "use_sliding_window": True,
            "sliding_window": 3,
            "layer_types": ["sliding_attention", "full_attention"],
        }
        model = Qwen3ForCausalLM(Qwen3Config(**shaped(size), **window, max_position_embeddings=CONTEXT))
    elif family == "llama":
        model = LlamaForCausalLM(LlamaConfig(**shaped(size), max_position_embeddings=CONTEXT))
    else:
        model = MistralForCausalLM(MistralConfig(**shaped(size), max_position_embeddings=CONTEXT, sliding_window=6))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5)
    return model.eval()


@pytest.fixture(scope="module", params=["gpt2", "qwen3", "windowed", "llama", "mistral"])
def model(request, tokenizer):
    return make(request.param, len(tokenizer))


@pytest.fixture(scope="module")
def gpt2(tokenizer):
    return make("gpt2", len(tokenizer))


LENGTHS = (1, 2, 6, 11, 18, 25, 32, 39)


def prompts_of_many_lengths(count: int = 24) -> list[str]:
    """Prompts of eight lengths: a model without masks reads each length in a batch of its own."""
    random = np.random.default_rng(0)
    return ["".join(random.choice(list(LETTERS), size=random.choice(LENGTHS))) for _ in range(count)]


def plain_formatter(model, tokenizer, prompt: str, limit: int, draws=None) -> str:
    """The reference: one prompt at a time, the whole text read again for every token, no cache."""
    numbers = list(tokenizer(prompt)["input_ids"])
    written: list[int] = []
    while len(written) < limit and len(numbers) <= CONTEXT:
        with torch.no_grad():
            logits = model(torch.tensor([numbers]), use_cache=False).logits[0, -1]
        if draws is None:
            token = int(logits.argmax())
        else:
            climb = np.cumsum(torch.softmax(logits.double(), -1).numpy())
            token = int(np.searchsorted(climb, draws[len(written)] * climb[-1], side="right"))
        if token == tokenizer.eos_token_id:
            break
        written.append(token)
        numbers.append(token)
    return tokenizer.decode(written)


def texts(completions) -> list[str]:
    return [completion.text for completion in completions]


def test_greedy_texts_are_those_of_a_plain_uncached_loop(model, tokenizer):
    prompts = prompts_of_many_lengths(15)
    expected = [plain_formatter(model, tokenizer, prompt, 8) for prompt in prompts]
    assert len(set(expected)) > 7
    assert texts(complete(model, tokenizer, prompts, limits=8, batch=6)) == expected


def test_sampled_texts_are_those_of_a_plain_uncached_loop(model, tokenizer):
    prompts = prompts_of_many_lengths(12)
    expected = [plain_formatter(model, tokenizer, p, 12, uniforms(7, i, 12)) for i, p in enumerate(prompts)]
    assert texts(complete(model, tokenizer, prompts, limits=12, greedy=False, seed=7)) == expected


@pytest.mark.parametrize("greedy", [True, False])
def test_the_batch_size_does_not_change_a_text(model, tokenizer, greedy):
    prompts = prompts_of_many_lengths(10)
    results = [complete(model, tokenizer, prompts, limits=8, greedy=greedy, seed=5, batch=size) for size in (1, 4, 64)]
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("greedy", [True, False])
def test_a_large_vocabulary_changes_no_text(model, tokenizer, greedy, monkeypatch):
    options = {"limits": 12, "greedy": greedy, "seed": 5, "batch": 6, "drafts": ["ab\n"] * 24}
    texts = complete(model, tokenizer, prompts_of_many_lengths(), **options)
    monkeypatch.setattr("gradatim.model.architecture.LARGE_VOCABULARY", 1)
    monkeypatch.setattr("gradatim.inference.decode.LARGE_VOCABULARY", 1)
    assert complete(model, tokenizer, prompts_of_many_lengths(), **options) == texts


@pytest.mark.parametrize("greedy", [True, False])
def test_prompts_that_are_read_in_parts_have_the_same_texts(model, tokenizer, greedy, monkeypatch):
    options = {"limits": 9, "greedy": greedy, "seed": 3, "batch": 16}
    prompts = prompts_of_many_lengths()
    texts = complete(model, tokenizer, prompts, **options)
    with Reads(model) as whole:
        complete(model, tokenizer, prompts, **options)
    monkeypatch.setattr("gradatim.inference.decode._tokens_of_a_pass", lambda model: 60)
    with Reads(model) as parts:
        assert complete(model, tokenizer, prompts, **options) == texts
    if supports_masking(model):
        longest = max(columns for _, columns in whole.shapes)
        assert any(rows * columns > 60 for rows, columns in whole.shapes if columns > 1)
        assert all(rows * columns <= max(60, longest) for rows, columns in parts.shapes if columns > 1)


@pytest.mark.parametrize("greedy", [True, False])
def test_drafts_change_no_text(model, tokenizer, greedy):
    prompts = prompts_of_many_lengths(12)
    plain = complete(model, tokenizer, prompts, limits=14, greedy=greedy, seed=2)
    # Right ones, wrong ones, half right ones, too long ones and ones that cannot be encoded.
    written = texts(plain)
    cut = [text[: len(text) // 2] + "abc" for text in written]
    drafts = [(text, text + "aaaa", half)[i % 3] for i, (text, half) in enumerate(zip(written, cut, strict=True))]
    drafts[4] = "é"
    assert complete(model, tokenizer, prompts, limits=14, greedy=greedy, seed=2, drafts=drafts) == plain


def test_right_drafts_are_read_in_one_pass_per_batch(gpt2, tokenizer):
    prompts = prompts_of_many_lengths()
    expected = complete(gpt2, tokenizer, prompts, limits=10)
    passes = []
    handle = gpt2.register_forward_hook(lambda *_: passes.append(1))
    try:
        assert complete(gpt2, tokenizer, prompts, limits=10, drafts=texts(expected), batch=12) == expected
    finally:
        handle.remove()
    assert len(passes) == 2


class Reads:
    """How many tokens a model was given, and in how many passes."""

    def __init__(self, model):
        self.model, self.shapes = model, []

    def __enter__(self):
        note = lambda _, __, given: self.shapes.append(tuple(given["input_ids"].shape))  # noqa: E731
        self.handle = self.model.register_forward_pre_hook(note, with_kwargs=True)
        return self

    def __exit__(self, *_):
        self.handle.remove()


@pytest.mark.parametrize("greedy", [True, False])
def test_prompts_that_begin_one_text_are_read_once_and_answered_as_if_alone(model, tokenizer, greedy):
    text = prompts_of_many_lengths()[1][:24] + "abc=1\n"
    prompts = [text[:end] for end in (3, 9, 9, 17, 24)] + ["h" + text[:5], "ab", text[:9]]
    drafts = [text[len(prompt) : end] for prompt, end in zip(prompts, (9, 17, 13, 24, 30), strict=False)] + ["", "", ""]
    alone = [
        complete(model, tokenizer, [prompt], limits=8, greedy=greedy, seed=3, indices=[place])[0]
        for place, prompt in enumerate(prompts)
    ]
    with Reads(model) as reads:
        together = complete(model, tokenizer, prompts, limits=8, greedy=greedy, seed=3, drafts=drafts)
    assert together == alone
    if model.config.model_type != "mistral":  # a sliding window forgets, so its texts stand alone
        assert reads.shapes[0] == (3, len(text))
    for batch in (1, 3):
        assert complete(model, tokenizer, prompts, limits=8, greedy=greedy, seed=3, drafts=drafts, batch=batch) == alone


@pytest.mark.parametrize("greedy", [True, False])
def test_a_settled_text_is_the_beginning_of_the_whole_one(model, tokenizer, greedy):
    prompts = prompts_of_many_lengths(16)
    whole = complete(model, tokenizer, prompts, limits=10, greedy=greedy, seed=6)
    # Some settle at once, some later, some never: whether the share stays small or not, texts are the same.
    for drafts in (None, [one.text[: index % 7] for index, one in enumerate(whole)]):
        for often in (2, 30):
            found = complete(
                model, tokenizer, prompts, limits=10, greedy=greedy, seed=6, drafts=drafts, batch=6,
                settled=lambda index, text, often=often: index % often != 0 and len(text) > index % 5,
            )  # fmt: skip
            assert {"settled"} < {one.finish for one in found}
            for index, (one, full) in enumerate(zip(found, whole, strict=True)):
                if one.finish == "settled":
                    assert index % often
                    assert full.text.startswith(one.text)
                    assert len(one.text) > index % 5
                else:
                    assert one == full


def test_what_is_settled_at_once_costs_one_pass_and_keeps_nothing(gpt2, tokenizer):
    prompts = prompts_of_many_lengths()
    with Reads(gpt2) as reads:
        found = complete(gpt2, tokenizer, prompts, limits=9, batch=12, settled=lambda *_: True)
    assert [rows for rows, _ in reads.shapes] == [12, 12]
    assert {one.finish for one in found} <= {"settled", "eos"}


def test_long_texts_that_are_only_read_come_in_smaller_groups(model, tokenizer):
    """Of 2,048 tokens, but never more rows than asked for; what is written to comes in groups of as many rows."""
    long, short = ["abcdefgh" * 5 + a + b for a in LETTERS[:8] for b in LETTERS[:8]], list(LETTERS[1:13])
    read = {"prompts": long + short, "limits": 1, "batch": 64}
    with Reads(model) as reads:
        once = complete(model, tokenizer, **read, settled=lambda *_: True)
    with Reads(model) as written:
        whole = complete(model, tokenizer, **read)
    assert [one.text for one in once] == [one.text for one in whole]
    if supports_masking(model):
        assert [rows for rows, _ in reads.shapes] == [48, 16 + 12]
        assert [rows for rows, _ in written.shapes] == [64, 12]


def test_a_place_tells_random_numbers_apart(gpt2, tokenizer):
    prompts = prompts_of_many_lengths()
    every = complete(gpt2, tokenizer, prompts, limits=10, greedy=False, seed=8)
    some = [11, 3, 20]
    again = complete(gpt2, tokenizer, [prompts[n] for n in some], limits=10, greedy=False, seed=8, indices=some)
    assert again == [every[n] for n in some]
    with pytest.raises(ValueError, match=r"different lengths: .*3 indices"):
        complete(gpt2, tokenizer, prompts, limits=10, indices=some)


def test_the_same_seed_gives_the_same_texts_and_another_others(gpt2, tokenizer):
    prompts = prompts_of_many_lengths()
    first, again, other = (complete(gpt2, tokenizer, prompts, limits=10, greedy=False, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert sum(a != b for a, b in zip(first, other, strict=True)) > 12


def test_sampled_tokens_follow_the_distribution(gpt2, tokenizer):
    count = 4000
    written = complete(gpt2, tokenizer, ["ab=1"] * count, limits=1, greedy=False, seed=9)
    with torch.no_grad():
        numbers = torch.tensor([tokenizer("ab=1")["input_ids"]])
        expected = torch.softmax(gpt2(numbers).logits[0, -1].double(), -1).numpy()
    for token, share in enumerate(expected):
        text = "" if token == 1 else tokenizer.decode([token])
        seen = sum(one.text == text for one in written) / count
        assert abs(seen - share) < 5 * np.sqrt(share * (1 - share) / count) + 1e-9


def test_random_numbers_do_not_depend_on_how_many_are_drawn():
    assert uniforms(3, 8, 5).tolist() == uniforms(3, 8, 50)[:5].tolist()
    assert uniforms(3, 8, 5).tolist() != uniforms(3, 9, 5).tolist()
    assert uniforms(-1, 0, 2).tolist() == uniforms(2**64 - 1, 0, 2).tolist()


def test_a_text_stops_before_the_first_stop_string(gpt2, tokenizer):
    prompts = prompts_of_many_lengths()
    whole = complete(gpt2, tokenizer, prompts, limits=20, greedy=False, seed=1)
    cut = complete(gpt2, tokenizer, prompts, limits=20, greedy=False, seed=1, stop=("a", "1="))
    assert any(one.finish == "stop" for one in cut)
    for long, short in zip(whole, cut, strict=True):
        places = [place for place in (long.text.find("a"), long.text.find("1=")) if place >= 0]
        assert short.text == (long.text[: min(places)] if places else long.text)
        assert (short.finish == "stop") == bool(places)


def test_bpe_texts_stop_at_strings_that_cross_tokens():
    corpus = ["abc = 1\n\nabc = 2\n\n" * 5]
    tokenizer = bpe_tokenizer(corpus, 270)
    model = make("gpt2", len(tokenizer))
    plain = complete(model, tokenizer, ["abc", "= 1"] * 10, limits=30, greedy=False, seed=4)
    stop = tuple({one.text[5:7] for one in plain if one.text[5:7].isascii() and len(one.text) > 7})
    cut = complete(model, tokenizer, ["abc", "= 1"] * 10, limits=30, greedy=False, seed=4, stop=stop)
    assert sum(one.finish == "stop" for one in cut) >= len(stop) > 0
    assert not any(one in completion.text for completion in cut for one in stop)


INDENTED = "def f(a):\n    return a\n    if b:\n        return 2\n"


@pytest.fixture(scope="module")
def merging():
    """A tokenizer with a token for a line's end and the indentation behind it, and a model that reads it."""
    tokenizer = bpe_tokenizer([INDENTED] * 20, 300)
    assert {"\n   ", "\n       "} <= {tokenizer.decode([number]) for number in range(len(tokenizer))}
    return make("llama", len(tokenizer)), tokenizer


def healed(model, tokenizer, kept: str, cut: str, limit: int, draws=None) -> str:
    """The reference: after ``kept``, the likeliest token that begins with ``cut``, then a plain loop."""
    numbers = tokenizer(kept)["input_ids"]
    logits = model(torch.tensor([numbers]), use_cache=False).logits[0, -1].detach().clone()
    logits[[not tokenizer.decode([number]).startswith(cut) for number in range(len(tokenizer))]] = -torch.inf
    first = int(logits.argmax())
    if draws is not None:
        climb = np.cumsum(torch.softmax(logits.double(), -1).numpy())
        first = int(np.searchsorted(climb, draws[0] * climb[-1], side="right"))
    begun = kept + tokenizer.decode([first])
    rest = None if draws is None else draws[1:]
    assert len(tokenizer(begun)["input_ids"]) == len(numbers) + 1
    return (begun + plain_formatter(model, tokenizer, begun, limit, rest))[len(kept + cut) :]


@pytest.mark.parametrize("greedy", [True, False])
def test_a_prompt_that_ends_inside_a_token_is_cut_back_and_healed(merging, greedy):
    model, tokenizer = merging
    prompts = ["def f(a):\n", "    if b:\n", "return 2\n", "def f(a):\n    return a\n"]
    drawn = [None if greedy else uniforms(5, place, 9) for place in range(len(prompts))]
    expected = [
        healed(model, tokenizer, prompt[:-1], "\n", 8, draws) for prompt, draws in zip(prompts, drawn, strict=True)
    ]
    options = {"limits": 8, "greedy": greedy, "seed": 5, "heal": True}
    assert texts(complete(model, tokenizer, prompts, **options)) == expected
    assert texts(complete(model, tokenizer, prompts, drafts=expected, batch=1, **options)) == expected
    assert texts(complete(model, tokenizer, prompts, drafts=["    return a"] * 4, **options)) == expected
    assert expected != texts(complete(model, tokenizer, prompts, **{**options, "heal": False}))


def test_what_was_cut_off_counts_neither_for_stops_nor_for_what_is_settled(merging):
    model, tokenizer = merging
    prompts = ["def f(a):\n"]
    (whole,) = complete(model, tokenizer, prompts, limits=8, heal=True)
    (stopped,) = complete(model, tokenizer, prompts, limits=8, heal=True, stop=["\n"])
    assert stopped.text == whole.text.partition("\n")[0]
    seen = []
    complete(model, tokenizer, prompts, limits=8, heal=True, settled=lambda _, text: bool(seen.append(text)))
    assert seen
    assert all(whole.text.startswith(text) for text in seen)


def test_characters_and_whole_tokens_have_nothing_to_heal(gpt2, tokenizer, merging):
    prompts = prompts_of_many_lengths()
    options = {"limits": 10, "greedy": False, "seed": 2}
    assert complete(gpt2, tokenizer, prompts, heal=True, **options) == complete(gpt2, tokenizer, prompts, **options)
    whole = ["\n       ", "b"]  # nothing goes on from the first, and a first token stays
    assert complete(*merging, whole, heal=True, **options) == complete(*merging, whole, **options)


def test_a_text_ends_with_the_context_and_says_so(model, tokenizer):
    results = complete(
        model, tokenizer, ["a" * (CONTEXT - 2), "a" * CONTEXT, "a" * (CONTEXT + 1)], limits=30, greedy=False
    )
    lengths = [len(one.text.replace("<pad>", "0")) for one in results]
    assert lengths[0] <= 3
    assert lengths[1] <= 1
    assert results[2].text == ""
    assert results[2].finish == "too_long"
    assert {one.finish for one in results[:2]} <= {"context", "eos"}


def test_what_cannot_be_asked_is_named_and_the_rest_is_answered(gpt2, tokenizer):
    results = complete(gpt2, tokenizer, ["ab", "é", "ab", ""], limits=[5, 5, 0, 5])
    assert [one.finish for one in results[1:3]] == ["unknown_character", "limit"]
    assert results[0].text == plain_formatter(gpt2, tokenizer, "ab", 5)
    assert results[3].finish in ("limit", "eos")


def test_no_prompts_give_no_texts(gpt2, tokenizer):
    assert complete(gpt2, tokenizer, [], limits=5) == []
    assert predict_next(gpt2, tokenizer, []) == []


def test_the_models_mode_is_left_as_it_was(tokenizer):
    model = make("gpt2", len(tokenizer)).train()
    first = complete(model, tokenizer, ["ab=1"], limits=10)
    assert model.training
    assert complete(model.eval(), tokenizer, ["ab=1"], limits=10) == first
    assert not model.training


def test_progress_is_told_from_start_to_finish(gpt2, tokenizer):
    heard: list[Event] = []
    complete(gpt2, tokenizer, prompts_of_many_lengths(), limits=3, batch=8, events=heard.append, task="t")
    assert [event.kind for event in heard] == ["start", "advance", "advance", "advance", "finish"]
    assert [event.done for event in heard] == [0, 8, 16, 24, 24]


def test_predictions_are_the_likeliest_token_after_every_prefix(model, tokenizer):
    lines = [line for line in prompts_of_many_lengths(6) if len(line) > 1]
    for line, found in zip(lines, predict_next(model, tokenizer, lines, batch=4), strict=True):
        numbers = tokenizer(line)["input_ids"]
        assert found.truth.tolist() == numbers[1:]
        assert found.total == len(numbers) - 1
        with torch.no_grad():
            for place in range(1, len(numbers)):
                assert found.predicted[place - 1] == int(model(torch.tensor([numbers[:place]])).logits[0, -1].argmax())


def test_sampled_predictions_do_not_depend_on_the_batch(gpt2, tokenizer):
    lines = prompts_of_many_lengths(30)
    one, many = (predict_next(gpt2, tokenizer, lines, greedy=False, seed=3, batch=size) for size in (1, 30))
    assert [p.predicted.tolist() for p in one] == [p.predicted.tolist() for p in many]


def test_predictions_beyond_the_context_are_counted_but_not_made(gpt2, tokenizer):
    long, unknown, short = predict_next(gpt2, tokenizer, ["a" * (CONTEXT + 10), "aé1", "a"])
    assert (long.finish, long.total, len(long.predicted), len(long.truth)) == (
        "too_long",
        CONTEXT + 9,
        CONTEXT,
        CONTEXT,
    )
    assert (unknown.finish, unknown.total, len(unknown.predicted)) == ("unknown_character", 2, 0)
    assert (short.finish, short.total) == ("done", 0)


def test_a_student_folder_opens_as_it_was_saved(gpt2, tokenizer, tmp_path):
    gpt2.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    student = load_student(tmp_path)
    assert not student.model.training
    prompts = prompts_of_many_lengths(10)
    assert complete(student.model, student.tokenizer, prompts, limits=8) == complete(gpt2, tokenizer, prompts, limits=8)


def test_a_folder_that_is_not_a_student_says_why(gpt2, tokenizer, tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        load_student(tmp_path / "missing")
    with pytest.raises(DataError, match=r"no config\.json"):
        load_student(tmp_path)
    gpt2.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not a tensor")
    with pytest.raises(DataError, match="cannot be opened"):
        load_student(tmp_path)


def test_a_tokenizer_larger_than_the_model_is_refused(gpt2, tmp_path):
    gpt2.save_pretrained(tmp_path)
    character_tokenizer([LETTERS + "xyz"]).save_pretrained(tmp_path)
    with pytest.raises(DataError, match="more tokens than the model"):
        load_student(tmp_path)
