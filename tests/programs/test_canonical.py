"""The canonical form is the same for programs that differ in variable names only, and different for others."""

from __future__ import annotations

import builtins
import io
import keyword
import tokenize
from pathlib import Path
from string import ascii_lowercase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.programs.equivalence import canonical

PROGRAM = (
    "{0} = 4\n{1} = 3\nif {0} > {1} and not {1} <= 2 or {0} == 1 :\n\t{2} = ({0} + 3) * {1}\nelif {1} != 2 :\n"
    "\t{2} = 1.5e3\nelse :\n\tprint({0})\nfor {3} in range(3, 12, 2) :\n\tprint({1})\nwhile {0} < 9 :\n"
    "\t{0} = {0} + 2\n# output\n"
)
names = st.lists(st.sampled_from(ascii_lowercase), min_size=4, max_size=4, unique=True)


@given(names)
def test_any_renaming_of_the_variables_has_the_same_form(letters: list[str]) -> None:
    assert canonical(PROGRAM.format(*letters)) == PROGRAM.format("a", "b", "c", "d")


@given(names)
def test_merging_two_variables_changes_the_form(letters: list[str]) -> None:
    merged = [letters[0], letters[0], *letters[2:]]
    assert canonical(PROGRAM.format(*merged)) != canonical(PROGRAM.format(*letters))


@pytest.mark.parametrize("text", ["_=a''b", "x=a'' a", "c''+c", 'k"" + a"'])
def test_what_stands_before_a_quote_never_becomes_its_prefix(text: str) -> None:
    once = canonical(text)
    assert canonical(once) == once


def test_a_prefix_stays_where_a_variable_of_its_name_does_not() -> None:
    assert canonical("f = 3\nprint(f'{f}')\n") == "a = 3\nprint(f'{f}')\n"


@given(st.text(alphabet=st.sampled_from("ab_1 e.'\"#\n\\frv26=+(print)é"), max_size=60) | st.text())
def test_any_text_goes_through_and_a_second_time_changes_nothing(text: str) -> None:
    once = canonical(text)
    assert canonical(once) == once


@pytest.mark.parametrize("word", sorted(set(keyword.kwlist) | {"range", "print", "len", "sum"}))
def test_keywords_and_builtins_are_left_alone(word: str) -> None:
    assert canonical(f"z {word} y {word}2") == f"a {word} b c"
    assert word in keyword.kwlist or hasattr(builtins, word)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("x = 'x y' + f'x'", "a = 'x y' + f'x'"),
        ('x = """x\ny"""; y', 'a = """x\ny"""; b'),
        ("return'x'if x else'y'", "return'x'if a else'y'"),
        (r"x = 'it\'s x'; x", r"a = 'it\'s x'; a"),
        ("x = 1e5 + 0xff + 1.e2 + .5e1", "a = 1e5 + 0xff + 1.e2 + .5e1"),
        ("x.append(y) # x y", "a.append(b) # x y"),
        ("# output\n", "# output\n"),
    ],
)
def test_strings_numbers_attributes_and_comments_are_left_alone(text: str, form: str) -> None:
    assert canonical(text) == form


def test_more_names_than_letters_stay_distinct() -> None:
    text = " ".join(f"name{i}" for i in range(60))
    form = canonical(text)
    assert len(set(form.split())) == 60
    assert canonical(form) == form


def test_the_lexer_agrees_with_pythons_tokenizer_on_this_file() -> None:
    text = Path(__file__).read_text(encoding="utf-8")

    def kinds(source: str) -> list[tuple[int, str]]:
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        return [(t.type, t.string if t.type != tokenize.NAME else "") for t in tokens]

    assert kinds(canonical(text)) == kinds(text)
