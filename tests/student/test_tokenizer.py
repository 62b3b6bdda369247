"""Facts about the student's tokenizers and the encoded table."""

from __future__ import annotations

import os
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, GPT2Config

from gradatim.errors import DataError, StorageFailed
from gradatim.model.tokenizer import (
    EOS,
    Encoded,
    bpe_tokenizer,
    character_codes,
    character_tokenizer,
    encode_table,
    texts_of,
)

pytestmark = pytest.mark.xdist_group("elsewhere")  # one process for the files that open models elsewhere

PROGRAM = "a = -1\nif a > 3 :\n\tprint(a)\nelse :\n\tprint(5.25 * a)\n# output\n"
SAMPLES = pa.table(
    {
        "prompt": pa.array([PROGRAM, "print(7)\n# output\n", ""], pa.large_string()),
        "answer": pa.array(["# -5.25\n", "# 7\n", "# 0\n"], pa.large_string()),
    }
)


@pytest.fixture(scope="module")
def tokenizer():
    return character_tokenizer(texts_of(SAMPLES))


def test_the_vocabulary_is_the_specials_then_the_characters_sorted(tokenizer):
    vocabulary = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    characters = set("".join(texts_of(SAMPLES)))
    assert vocabulary == ["<pad>", "<eos>", *sorted(characters)]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)


def test_the_order_of_the_texts_does_not_matter():
    assert character_tokenizer(["ab", "c"]).get_vocab() == character_tokenizer(["c", "ba"]).get_vocab()


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab \t\n\r#é漢😀́", max_size=30))
def test_character_texts_come_back_exactly(text):
    tokenizer = character_tokenizer(["ab \t\n\r#é漢😀́"])
    numbers = tokenizer(text)["input_ids"]
    assert len(numbers) == len(text)
    assert tokenizer.decode(numbers) == text


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=30).filter(lambda text: "\x00" not in text))
def test_bpe_texts_come_back_exactly(text):
    tokenizer = bpe_tokenizer([PROGRAM], 280)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_saved_tokenizer_opens_without_anything_of_ours(tmp_path, elsewhere):
    script = "from transformers import AutoTokenizer\n"
    for name, tokenizer in {"characters": character_tokenizer([PROGRAM]), "bpe": bpe_tokenizer([PROGRAM], 300)}.items():
        tokenizer.save_pretrained(tmp_path / name)
        GPT2Config(vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=1).save_pretrained(tmp_path / name)
        script += (
            f"t = AutoTokenizer.from_pretrained({name!r}); n = t({PROGRAM!r})['input_ids']\n"
            f"assert t.decode(n) == {PROGRAM!r} and n == {tokenizer(PROGRAM)['input_ids']!r}\n"
            "assert t.eos_token_id == 1 and t.pad_token_id == 0\n"
        )
    elsewhere(script, tmp_path)


def test_special_tokens_are_never_read_from_a_text(tmp_path):
    text = "print('<eos><pad>')\n"
    for tokenizer in (character_tokenizer([text]), bpe_tokenizer([text], 300)):
        tokenizer.save_pretrained(tmp_path)
        again = AutoTokenizer.from_pretrained(tmp_path)
        for one in (tokenizer, again):
            numbers = one(text)["input_ids"]
            assert not {0, 1} & set(numbers)
            assert one.decode(numbers) == text


def test_an_unknown_character_is_an_error_in_the_tokenizer_too(tokenizer):
    with pytest.raises(Exception, match="Missing"):
        tokenizer("é")


def test_an_encoded_sample_is_prompt_answer_and_eos(tokenizer):
    encoded = encode_table(tokenizer, SAMPLES)
    assert len(encoded) == 3
    assert encoded.tokens.dtype == np.uint8
    for row, (prompt, answer) in enumerate(zip(*(SAMPLES[c].to_pylist() for c in ("prompt", "answer")), strict=True)):
        expected = [*tokenizer(prompt)["input_ids"], *tokenizer(answer)["input_ids"], 1]
        assert encoded.sample(row).tolist() == expected
        assert encoded.answer_starts[row] == len(prompt)
    assert encoded.offsets.dtype == encoded.answer_starts.dtype == np.int64


def test_the_general_road_and_the_fast_one_agree(tokenizer, monkeypatch):
    fast = encode_table(tokenizer, SAMPLES)
    monkeypatch.setattr("gradatim.model.tokenizer.character_codes", lambda tokenizer: None)
    slow = encode_table(tokenizer, SAMPLES)
    for name in ("tokens", "offsets", "answer_starts"):
        assert np.array_equal(getattr(fast, name), getattr(slow, name))


def test_bpe_encodes_prompt_and_answer_apart():
    tokenizer = bpe_tokenizer(texts_of(SAMPLES), 300)
    encoded = encode_table(tokenizer, SAMPLES)
    assert encoded.tokens.dtype == np.uint16
    answer = encoded.sample(1)[encoded.answer_starts[1] :]
    assert answer.tolist() == [*tokenizer("# 7\n")["input_ids"], tokenizer.eos_token_id]


def test_a_folder_holds_the_same_arrays_memory_mapped(tokenizer, tmp_path):
    table = pa.concat_tables([SAMPLES] * 20_000)
    kept = encode_table(tokenizer, table, tmp_path / "encoded")
    assert isinstance(kept.tokens, np.memmap)
    assert sorted(os.listdir(tmp_path / "encoded")) == ["answer_starts.npy", "offsets.npy", "tokens.npy"]
    here, again = encode_table(tokenizer, table), Encoded.open(tmp_path / "encoded")
    for name in ("tokens", "offsets", "answer_starts"):
        assert np.array_equal(getattr(kept, name), getattr(here, name))
        assert np.array_equal(getattr(again, name), getattr(here, name))


def test_a_table_of_slices_is_encoded_like_a_whole_one(tokenizer):
    pieces = pa.concat_tables([SAMPLES.slice(2, 1), SAMPLES.slice(0, 2)])
    whole = SAMPLES.take([2, 0, 1])
    assert np.array_equal(encode_table(tokenizer, pieces).tokens, encode_table(tokenizer, whole).tokens)


def test_an_unknown_character_is_named_with_its_sample(tokenizer):
    table = pa.table({"prompt": ["a\n", "a = é\n"], "answer": ["", ""]})
    with pytest.raises(DataError, match=r"sample 1, character 4: .*'é' \(U\+00E9\).*try: "):
        encode_table(tokenizer, table)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (SAMPLES.slice(0, 0), "empty table"),
        (SAMPLES.drop_columns(["answer"]), "no column 'answer'"),
    ],
)
def test_a_table_that_cannot_be_encoded_says_why(tokenizer, table, words):
    with pytest.raises(DataError, match=words):
        encode_table(tokenizer, table)


def test_no_text_and_a_small_vocabulary_are_errors():
    with pytest.raises(DataError, match="no text"):
        character_tokenizer([""])
    with pytest.raises(DataError, match="allowed: 258 or more"):
        bpe_tokenizer([PROGRAM], 100)


def test_a_folder_that_cannot_be_written_or_read_says_so(tokenizer, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed, match="cannot be written"):
        encode_table(tokenizer, SAMPLES, tmp_path / "file" / "encoded")
    with pytest.raises(DataError, match="folder of encoded samples is incomplete"):
        Encoded.open(tmp_path)


def test_bpe_training_does_not_depend_on_the_hash_seed(tmp_path, elsewhere):
    script = (
        "from pathlib import Path; from gradatim.model.tokenizer import bpe_tokenizer\n"
        "texts = [f'v{i % 17} = {i * 7919 % 1000} + x{i % 5}' for i in range(3000)]\n"
        "Path('tokenizer').write_text(bpe_tokenizer(texts, 400).backend_tokenizer.to_str())\n"
        "Path('hash').write_text(str(hash('gradatim')))"
    )
    elsewhere(script, tmp_path, plain=False)
    assert (tmp_path / "hash").read_text() != str(hash("gradatim"))
    texts = [f"v{i % 17} = {i * 7919 % 1000} + x{i % 5}" for i in range(3000)]
    assert bpe_tokenizer(texts, 400).backend_tokenizer.to_str() == (tmp_path / "tokenizer").read_text()


def test_a_character_lookup_is_only_made_for_character_tokenizers(tokenizer):
    assert character_codes(bpe_tokenizer([PROGRAM], 300)) is None
    codes = character_codes(tokenizer)
    assert codes is not None
    assert codes.encode("a\U0010ffff").tolist() == [tokenizer.get_vocab()["a"], -1]
    assert EOS not in [chr(point) for point in np.flatnonzero(codes.numbers >= 0)]


def test_characters_are_encoded_at_ten_million_a_second(tokenizer):
    table = pa.concat_tables([SAMPLES] * 25_000).combine_chunks()
    rates = []
    for _ in range(3):
        start = time.process_time()
        tokens = encode_table(tokenizer, table).tokens
        rates.append(len(tokens) / (time.process_time() - start))
    assert max(rates) > 10e6
