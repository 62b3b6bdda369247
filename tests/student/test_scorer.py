"""What a model makes of a text that it did not write is what the plain definition says, batched or not."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from gradatim.difficulty.model_based import ScoringRequest
from gradatim.errors import DataError
from gradatim.inference import loglikelihood as scorer
from gradatim.inference.loglikelihood import (
    SWALLOWED,
    TOO_LONG,
    UNKNOWN,
    Continuation,
    attention_scores,
    encode_apart,
    encode_together,
    log_likelihoods,
    read_model,
)
from gradatim.model.tokenizer import bpe_tokenizer, character_tokenizer, word_level_tokenizer
from gradatim.model.vocabulary import Vocabulary

CONTEXT = 48
TEXTS = ["a = 1\nprint(a)\n# output\n", "# 1\n", "b = 23 + 4\n", "for i in range(7) :\n\tprint(i)\n", "xyz 09\n"]


@pytest.fixture(scope="module")
def tokenizer():
    return character_tokenizer(TEXTS)


@pytest.fixture(scope="module")
def llama(tokenizer):
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=CONTEXT, eos_token_id=1, pad_token_id=0, initializer_range=0.5,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def gpt(tokenizer):
    torch.manual_seed(4)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=CONTEXT, n_embd=16, n_layer=3, n_head=2, initializer_range=0.4
    )
    return GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="module")
def asked(tokenizer):
    """Continuations of many lengths, from one token to the whole context."""
    vocabulary = Vocabulary(tokenizer)
    numbers = vocabulary.encode("".join(TEXTS))
    pairs = [(2, 1), (5, 3), (1, 1), (1, 30), (40, CONTEXT - 40), (7, 2), (3, 9), (20, 20)]
    return [Continuation(numbers[at : at + before + after], before) for at, (before, after) in enumerate(pairs)]


@pytest.fixture(scope="module")
def folder(llama, tokenizer, tmp_path_factory):
    place = tmp_path_factory.mktemp("model")
    llama.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return str(place)


def gathered(parts):
    return {place: figure for part in parts for place, figure in part.items()}


@pytest.mark.parametrize("name", ["llama", "gpt"])
def test_a_likelihood_is_the_product_of_each_token_given_exactly_what_is_before_it(name, asked, request):
    model = request.getfixturevalue(name)
    found = gathered(log_likelihoods(model, asked))
    for place, each in enumerate(asked):
        plain = []
        for at in range(each.start, len(each.tokens)):
            with torch.no_grad():
                logits = model(torch.from_numpy(each.tokens[None, :at])).logits[0, -1].double()
            plain.append(float(torch.log_softmax(logits, -1)[each.tokens[at]]))
        assert found[place] == pytest.approx(plain, abs=1e-4)


@pytest.mark.parametrize("name", ["llama", "gpt"])
@pytest.mark.parametrize("read", [log_likelihoods, attention_scores])
def test_batched_and_one_at_a_time_are_the_same(name, read, asked, request):
    model = request.getfixturevalue(name)
    together = gathered(read(model, asked))
    for place, each in enumerate(asked):
        alone = gathered(read(model, [each]))[0]
        assert together[place] == pytest.approx(alone, abs=1e-4, nan_ok=True)


def test_a_pass_holds_no_more_than_there_is_room_for(llama, asked, monkeypatch):
    """Every text in a pass of its own, and still the same figures."""
    whole = gathered(log_likelihoods(llama, asked))
    monkeypatch.setattr(scorer, "_MAX_VALUES", {"cpu": 1})
    parts = list(log_likelihoods(llama, asked))
    assert [len(part) for part in parts] == [1] * len(asked)
    assert all(gathered(parts)[place] == pytest.approx(whole[place], abs=1e-4) for place in whole)


def test_attention_is_the_deviation_over_earlier_tokens_then_heads_tokens_layers(llama, asked):
    """The definition of 2405.07490, word for word, one number at a time."""
    found = gathered(attention_scores(llama, asked))
    llama.set_attn_implementation("eager")
    try:
        for place, each in enumerate(asked):
            with torch.no_grad():
                layers = llama(torch.from_numpy(each.tokens[None]), output_attentions=True).attentions
            by_layer = []
            for weights in layers:
                by_token = []
                for at in range(max(each.start, 2), len(each.tokens)):
                    by_token.append(float(np.mean([torch.std(head[at, :at]).item() for head in weights[0]])))
                by_layer.append(np.mean(by_token) if by_token else math.nan)
            assert found[place] == pytest.approx(float(np.mean(by_layer)), abs=1e-6, nan_ok=True)
    finally:
        llama.set_attn_implementation("sdpa")
    assert math.isnan(found[2])  # one token before the only one that is asked about: it has no deviation


def test_the_models_attention_mode_and_random_state_are_left_alone(llama, asked):
    llama.train()
    before, own = torch.get_rng_state(), llama.config._attn_implementation
    list(attention_scores(llama, asked))
    list(log_likelihoods(llama, asked))
    assert llama.config._attn_implementation == own == "sdpa"
    assert llama.training
    assert torch.equal(torch.get_rng_state(), before)
    llama.eval()


def test_spaces_at_the_seam_belong_to_the_continuation():
    tokenizer = bpe_tokenizer(["the cat sat on the mat the cat " * 20], 300)
    vocabulary = Vocabulary(tokenizer)
    one, two = encode_together(vocabulary, "the ", "cat"), encode_together(vocabulary, "the", " cat")
    assert one.tokens.tolist() == two.tokens.tolist() == tokenizer("the cat", add_special_tokens=False)["input_ids"]
    assert one.start == two.start == len(tokenizer("the")["input_ids"])
    assert tokenizer.decode(one.tokens[one.start :]) == " cat"


def test_a_continuation_that_is_swallowed_by_the_contexts_last_token_cannot_be_asked():
    tokenizer = bpe_tokenizer(["ab " * 50], 259)
    vocabulary = Vocabulary(tokenizer)
    assert len(tokenizer("ab")["input_ids"]) == 1
    assert encode_together(vocabulary, "a", "b") == SWALLOWED
    assert encode_apart(vocabulary, "a", "b").start == 1


def test_lexical_tokens_are_read_too():
    vocabulary = Vocabulary(word_level_tokenizer(["a = 12\nprint(a)\n# output\n", "# 12\n"], 64))
    each = encode_apart(vocabulary, "a = 12\nprint(a)\n# output\n", "# 12\n")
    assert vocabulary.text(each.tokens[each.start :].tolist()) == "# 12\n"


def test_an_empty_prompt_starts_with_the_end_of_the_text_before(tokenizer):
    each = encode_apart(Vocabulary(tokenizer), "", "# 1\n")
    assert (each.tokens[0], each.start, len(each.tokens)) == (tokenizer.eos_token_id, 1, 5)


def test_a_folder_is_read_and_each_misfit_says_why(folder, llama, tokenizer):
    fits = "1" * (CONTEXT - 3)
    rows = [
        ScoringRequest("a = 1\n", "# 1\n"),
        ScoringRequest("a", fits + "000"),
        ScoringRequest("a", fits + "0000"),
        ScoringRequest("a", "é"),
        ScoringRequest("a", ""),
    ]
    found = gathered(read_model(folder, "loss", rows))
    each = encode_apart(Vocabulary(tokenizer), rows[0].prompt, rows[0].answer)
    assert found[0] == pytest.approx(-gathered(log_likelihoods(llama, [each]))[0].mean(), abs=1e-5)
    assert isinstance(found[1], float)  # context and one token more: the last is asked for, not read
    assert found[2] == TOO_LONG
    assert found[3] == UNKNOWN
    assert found[4] == "the answer is empty"
    assert gathered(read_model(folder, "attention", rows))[1] == TOO_LONG


def test_a_folder_without_a_tokenizer_is_told_so(llama, tmp_path):
    llama.save_pretrained(tmp_path)
    with pytest.raises(DataError, match="has no tokenizer"):
        list(read_model(str(tmp_path), "loss", [ScoringRequest("a", "b")]))


def test_no_padding_token_is_needed(llama, tokenizer, tmp_path):
    llama.save_pretrained(tmp_path)
    copy = character_tokenizer(TEXTS)
    copy.pad_token = None
    copy.save_pretrained(tmp_path)
    rows = [ScoringRequest("a = 1\n", "# 1\n"), ScoringRequest("b", "# 23\n")]
    assert all(isinstance(figure, float) for figure in gathered(read_model(str(tmp_path), "loss", rows)).values())


def test_an_empty_prompt_needs_a_start_and_says_so(llama, tmp_path):
    llama.save_pretrained(tmp_path)
    copy = character_tokenizer(TEXTS)
    copy.eos_token = None
    copy.save_pretrained(tmp_path)
    with pytest.raises(DataError, match="end-of-text"):
        list(read_model(str(tmp_path), "loss", [ScoringRequest("", "a")]))


def test_the_probability_among_options_is_the_softmax_of_their_likelihoods(folder, llama, tokenizer):
    options = (" 1", " 23", " 9 4")
    rows = [
        ScoringRequest("a =", " 23", options),
        ScoringRequest("a =", " 7", options),
        ScoringRequest("a" * CONTEXT, " 23", options),
    ]
    found = gathered(read_model(folder, "choice", rows))
    vocabulary = Vocabulary(tokenizer)
    sums = gathered(log_likelihoods(llama, [encode_together(vocabulary, "a =", option) for option in options]))
    likely = np.exp([float(sums[place].sum()) for place in range(3)])
    assert found[0] == pytest.approx(likely[1] / likely.sum(), abs=1e-5)
    assert found[1] == "the answer is not among the options"
    assert found[2] == TOO_LONG


@pytest.mark.slow
def test_a_pretrained_models_loss_is_the_one_that_transformers_computes():
    folder = Path(os.environ.get("GRADATIM_MODELS", "")) / "smollm2-hf"
    if not (folder / "config.json").is_file():
        pytest.skip("no smollm2-hf in the folder that GRADATIM_MODELS names")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rows = [
        ScoringRequest("def add(a, b):\n", "    return a + b\n"),
        ScoringRequest("The capital of France is", " Paris."),
        ScoringRequest("The capital of France is", " potato."),
    ]
    found = gathered(read_model(str(folder), "loss", rows))
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval().float()
    for place, row in enumerate(rows):
        before, after = tokenizer.encode(row.prompt), tokenizer.encode(row.answer)
        labels = torch.tensor([[-100] * len(before) + after])
        with torch.no_grad():
            wanted = float(model(torch.tensor([before + after]), labels=labels).loss)
        assert found[place] == pytest.approx(wanted, abs=1e-4)
        assert gathered(read_model(str(folder), "loss", [row]))[0] == pytest.approx(found[place], abs=1e-4)
    assert found[1] < found[2]
    spread = gathered(read_model(str(folder), "attention", rows))
    assert all(0 < spread[place] < 1 for place in range(3))
