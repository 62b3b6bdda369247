"""Facts about the tokenizer of digits, one-letter names and the phrases between them."""

import pyarrow as pa
import pytest
from transformers import GPT2Config

from gradatim.errors import DataError
from gradatim.model.tokenizer import encode_table, separate_texts, texts_of, word_level_tokenizer
from gradatim.model.vocabulary import Vocabulary
from gradatim.programs import generate

pytestmark = pytest.mark.xdist_group("elsewhere")  # one process for the files that open models elsewhere

SAMPLES = generate(400, levels=["all"], digits=99, seed=3).table
PROGRAM = SAMPLES["prompt"][7].as_py() + SAMPLES["answer"][7].as_py()


@pytest.fixture(scope="module")
def tokenizer():
    return word_level_tokenizer(separate_texts(SAMPLES), 512)


def test_every_program_is_read_and_written_unchanged(tokenizer):
    for text in texts_of(SAMPLES):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_digits_and_names_stand_alone(tokenizer):
    for text in texts_of(SAMPLES):
        for token in tokenizer.tokenize(text):
            assert len(token) == 1 or not any(c.isdigit() for c in token)
            assert len(token) == 1 or all(
                len(word) > 1 for word in "".join(c if c.isalnum() else " " for c in token).split()
            )


def test_a_program_takes_two_fifths_of_the_tokens_of_characters():
    single = generate(400, levels=["all"], digits=9, seed=3).table
    encoded = encode_table(word_level_tokenizer(separate_texts(single), 512), single)
    assert 2.4 * len(encoded.tokens) < sum(map(len, texts_of(single)))


def test_the_end_of_a_prompt_is_one_token(tokenizer):
    assert tokenizer.tokenize("print(a)\n# output\n")[-1] == ")\n# output\n"


def test_answers_are_encoded_as_they_are_asked(tokenizer):
    encoded = encode_table(tokenizer, SAMPLES)
    for row in range(20):
        prompt, answer = (SAMPLES[name][row].as_py() for name in ("prompt", "answer"))
        sample = encoded.sample(row).tolist()
        assert sample[: encoded.answer_starts[row]] == tokenizer(prompt)["input_ids"]
        assert sample[encoded.answer_starts[row] :] == [*tokenizer(answer)["input_ids"], 1]


def test_an_unseen_phrase_is_spelt_by_its_longest_known_parts():
    tokenizer = word_level_tokenizer(["a = 1\nb + 2\n"], 64)
    assert tokenizer.tokenize("a + = 1") == ["a", " + ", "=", " ", "1"]


def test_a_full_vocabulary_keeps_the_commonest_phrases_and_every_character():
    text = "a = 1\nb = 2\nc + 3\n"
    tokenizer = word_level_tokenizer([text], 2 + len(set(text)) + 1)
    assert tokenizer.tokenize("a = 1") == ["a", " = ", "1"]
    assert tokenizer.tokenize("a + 1") == ["a", " ", "+", " ", "1"]


def test_the_order_of_the_texts_does_not_matter():
    assert (
        word_level_tokenizer(["a = 1", "b + 2"], 64).get_vocab()
        == word_level_tokenizer(["b + 2", "a = 1"], 64).get_vocab()
    )


def test_a_vocabulary_smaller_than_the_characters_is_refused():
    with pytest.raises(DataError, match="6 or more"):
        word_level_tokenizer(["a =1"], 4)


def test_an_unknown_character_is_named_with_its_place(tokenizer):
    table = pa.table({"prompt": ["a = 1\n", "a = é\n"], "answer": ["# 1\n", ""]})
    with pytest.raises(DataError, match=r"'é'.*sample 1, character 4|sample 1, character 4.*'é'"):
        encode_table(tokenizer, table)


def test_a_prompt_with_an_unknown_character_cannot_be_asked(tokenizer):
    assert Vocabulary(tokenizer).encode("a = é") is None
    assert Vocabulary(tokenizer).encode(PROGRAM).tolist() == tokenizer(PROGRAM)["input_ids"]


def test_texts_that_cannot_be_encoded_leave_the_others_in_their_places(tokenizer):
    texts = [PROGRAM, "a = é", "", "b = 12\n", "é", "print(b)\n"]
    found = Vocabulary(tokenizer).encode_all(texts)
    expected = [None if "é" in text else tokenizer(text)["input_ids"] for text in texts]
    assert [None if tokens is None else tokens.tolist() for tokens in found] == expected
    assert Vocabulary(tokenizer).encode_all([]) == []
    assert [tokens.tolist() for tokens in Vocabulary(tokenizer).prompts(["", "a"])] == [
        [tokenizer.eos_token_id],
        tokenizer("a")["input_ids"],
    ]


def test_a_saved_tokenizer_opens_without_anything_of_ours(tokenizer, tmp_path, elsewhere):
    tokenizer.save_pretrained(tmp_path)
    GPT2Config(vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=1).save_pretrained(tmp_path)
    code = (
        f"from transformers import AutoTokenizer\nt = AutoTokenizer.from_pretrained({str(tmp_path)!r})\n"
        f"n = t({PROGRAM!r})['input_ids']\nassert t.decode(n) == {PROGRAM!r}\n"
        f"assert n == {tokenizer(PROGRAM)['input_ids']!r}\n"
    )
    elsewhere(code, tmp_path)
