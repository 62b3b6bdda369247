"""Difficulties by models and teachers: their scores, the cache, the injected services, and missing scores."""

from __future__ import annotations

import importlib
import math
import multiprocessing
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import gradatim
from gradatim.difficulty import DIFFICULTIES, score
from gradatim.difficulty.model_based import ModelDifficulty, ScoringRequest, TeacherRating, read_rating
from gradatim.difficulty.score import ScoreCache, digest_of, key_of
from gradatim.errors import DataError, RecipeError, UnknownPart
from gradatim.experiment.assemble.components import NamedScorer, TeacherChat, make_difficulty
from gradatim.stage import Difficulty, ignore_events
from gradatim.table import make_table
from gradatim.teacher import Request
from gradatim.teacher.llm_teacher import ScriptedChat


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("GRADATIM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def samples() -> pa.Table:
    return make_table({"prompt": ["a", "a", "b", "c"], "answer": ["1", "2", "333", "é"]})


class Table:
    """A scorer whose figures are looked up; it hands them on one at a time and counts what it is asked."""

    def __init__(self, figures: Mapping[str, float | str], identity: str = "table", fail_after: int = 10**9) -> None:
        self.figures, self.identity, self.fail_after = figures, identity, fail_after
        self.asked: list[ScoringRequest] = []

    def read(self, quantity: str, asked: Sequence[ScoringRequest]) -> Iterator[Mapping[int, float | str]]:
        for place, each in enumerate(asked):
            if len(self.asked) >= self.fail_after:
                raise KeyboardInterrupt
            self.asked.append(each)
            yield {place: self.figures[each.answer]}


FIGURES = {"1": 0.1, "2": 0.25, "333": 1 / 3, "é": "a character outside the tokenizer's vocabulary"}


def test_two_answers_to_one_question_have_figures_of_their_own(samples):
    assert samples["id"][0] == samples["id"][1]
    assert ModelDifficulty("loss", (Table(FIGURES),))(samples)[:2].tolist() == [0.1, 0.25]


def test_what_is_remembered_is_the_same_to_the_last_bit_and_is_not_asked_again(samples):
    first = Table(FIGURES)
    scores = ModelDifficulty("loss", (first,))(samples)
    again = Table(FIGURES)
    part = ModelDifficulty("loss", (again,))
    assert part(samples).tobytes() == scores.tobytes()
    assert [each.answer for each in again.asked] == ["é"]  # what has no figure is found out again
    assert dict(part.causes) == {"a character outside the tokenizer's vocabulary": 1}


def test_perplexity_is_read_from_what_is_remembered_of_the_loss(samples):
    ModelDifficulty("loss", (Table(FIGURES),))(samples.slice(0, 3))
    silent = Table({})
    assert ModelDifficulty("perplexity", (silent,))(samples.slice(0, 3)) == pytest.approx(np.exp([0.1, 0.25, 1 / 3]))
    assert silent.asked == []


def test_another_model_and_another_quantity_are_asked_anew(samples):
    ModelDifficulty("loss", (Table(FIGURES),))(samples)
    for measure, scorer in (("loss", Table(FIGURES, "other")), ("attention", Table(FIGURES))):
        ModelDifficulty(measure, (scorer,))(samples)
        assert len(scorer.asked) == 4


def test_a_scoring_that_was_stopped_goes_on_where_it_was(samples):
    with pytest.raises(KeyboardInterrupt):
        ModelDifficulty("loss", (Table(FIGURES, fail_after=2),))(samples)
    rest = Table(FIGURES)
    scores = ModelDifficulty("loss", (rest,))(samples)
    assert [each.answer for each in rest.asked] == ["333", "é"]
    assert scores[:3].tolist() == [0.1, 0.25, 1 / 3]


def test_equal_samples_are_asked_once(samples):
    scorer = Table(FIGURES)
    twice = pa.concat_tables([samples, samples])
    scores = ModelDifficulty("loss", (scorer,))(twice)
    assert len(scorer.asked) == 4
    assert np.array_equal(scores[:4], scores[4:], equal_nan=True)


def test_more_attention_score_is_easier(samples):
    assert ModelDifficulty("attention", (Table(FIGURES),))(samples)[:2].tolist() == [-0.1, -0.25]


def test_p_correct_averages_probabilities_over_models(samples):
    losses = {"1": 0.5, "2": 1.0, "333": 2.0, "é": "unknown"}
    scores = ModelDifficulty("p_correct", (Table(FIGURES, "one"), Table(losses, "two")))(samples)
    assert scores[:3] == pytest.approx(1 - (np.exp([-0.1, -0.25, -1 / 3]) + np.exp([-0.5, -1.0, -2.0])) / 2)
    assert math.isnan(scores[3])


def test_p_correct_of_a_sample_with_options_is_its_share_among_them(samples):
    options = pa.array([["1", "9"], None, ["333", "4"], None], pa.list_(pa.string()))
    scorer = Table({"1": 0.75, "2": 0.25, "333": 0.5, "é": "unknown"})
    scores = ModelDifficulty("p_correct", (scorer,))(samples.append_column("options", options))
    assert scores[:3] == pytest.approx([1 - 0.75, 1 - math.exp(-0.25), 1 - 0.5])
    assert {each.answer: each.options for each in scorer.asked}["1"] == ("1", "9")


def test_a_figure_that_is_not_finite_is_no_score_and_is_counted(samples):
    part = ModelDifficulty("loss", (Table({**FIGURES, "2": math.inf, "1": math.nan}),))
    assert np.isnan(part(samples)).tolist() == [True, True, False, True]
    assert part.causes["the model's figure is not finite"] == 2


def test_the_facts_of_a_table_say_why_samples_have_no_score(samples):
    heard = []
    _, facts = score(samples, {"loss": ModelDifficulty("loss", (Table(FIGURES),))}, events=heard.append)
    assert facts["metrics"]["loss"]["unscored"] == 1
    assert facts["metrics"]["loss"]["causes"] == {"a character outside the tokenizer's vocabulary": 1}
    assert any(event.kind == "note" and "1 samples have no score" in event.text for event in heard)


@pytest.mark.parametrize("name", ["loss", "perplexity", "attention", "p_correct"])
def test_a_metric_without_a_model_or_with_one_that_is_not_there_says_so(name, tmp_path):
    with pytest.raises(RecipeError, match="needs a model"):
        make_difficulty(name)
    (tmp_path / "smol").mkdir()
    with pytest.raises(DataError, match="did you mean 'smol'"):
        make_difficulty(name, {"model": str(tmp_path / "smoll")})
    with pytest.raises(RecipeError, match="1 or more"):
        make_difficulty(name, {"model": str(tmp_path), "batch": 0})


def test_only_p_correct_takes_several_models(tmp_path):
    several = {"model": [str(tmp_path), str(tmp_path)]}
    assert len(make_difficulty("p_correct", several).scorers) == 2
    with pytest.raises(RecipeError, match="model must be a text"):
        make_difficulty("loss", several)


def test_the_digest_of_a_model_follows_its_weights_and_tokenizer_and_nothing_else(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "tokenizer.json").write_text("{}")
    first = digest_of(tmp_path)
    (tmp_path / "README.md").write_text("a card")
    assert digest_of(tmp_path) == first
    assert NamedScorer(str(tmp_path)).identity.split("\0")[1:] == [
        first
    ]  # after the version of how texts become tokens
    (tmp_path / "tokenizer.json").write_text("{ }")
    second = digest_of(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    assert len({first, second, digest_of(tmp_path)}) == 3


CACHE_OF_AN_EARLIER_VERSION = Path(__file__).parents[1] / "data" / "cache-before-sqlite"


def test_scores_of_an_earlier_version_are_carried_over_bit_for_bit_and_their_file_is_removed(cache):
    shutil.copytree(CACHE_OF_AN_EARLIER_VERSION, cache, dirs_exist_ok=True)
    (path,) = (file for file in cache.rglob("loss"))
    path.write_bytes(path.read_bytes() + b"torn")
    expected = {key_of("prompt", "answer"): 1.5, key_of("prompt", "other"): 0.1}
    assert ScoreCache("model", "loss").scores() == expected
    assert not path.parent.exists()
    ScoreCache("model", "loss").add({key_of("c"): -0.0})
    assert ScoreCache("model", "loss").scores() == {**expected, key_of("c"): 0.0}
    assert ScoreCache("teacher", "judged").scores() == {key_of("q", "a"): 7.0}


def test_scores_of_a_new_version_win_over_those_of_an_earlier_one(cache):
    kept = ScoreCache("model", "loss")
    kept.add({key_of("prompt", "answer"): 2.5})
    shutil.copytree(CACHE_OF_AN_EARLIER_VERSION, cache, dirs_exist_ok=True)
    assert kept.scores() == {key_of("prompt", "answer"): 2.5, key_of("prompt", "other"): 0.1}


def test_the_scores_written_longest_ago_are_removed_from_a_large_file(cache, monkeypatch):
    module = importlib.import_module("gradatim.difficulty.score")  # its name in the package is a function
    monkeypatch.setattr(module, "MOST_BYTES", 1)
    ScoreCache("old", "loss").add({key_of("a"): 1.0})
    ScoreCache("new", "loss").add({key_of("a"): 2.0})
    assert ScoreCache("old", "loss").scores()  # used in the last hour
    monkeypatch.setattr("gradatim.languages.toolchain.KEPT_SECONDS", -1.0)
    monkeypatch.setattr(module, "MOST_BYTES", 4096 * 4)
    big = {key_of(str(number)): 1.0 for number in range(2000)}
    ScoreCache("other", "loss").add(big)
    assert ScoreCache("old", "loss").scores() == {}


def _add(folder: str, number: int) -> None:
    import os

    os.environ["GRADATIM_CACHE"] = folder
    for each in range(200):
        ScoreCache("model", "loss").add({key_of(str(number), str(each)): float(number * 1000 + each)})


def test_processes_that_remember_at_once_lose_nothing(cache):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_add, args=(str(cache), number)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    found = ScoreCache("model", "loss").scores()
    wanted = {key_of(str(number), str(each)): float(number * 1000 + each) for number in range(3) for each in range(200)}
    assert found == wanted


def test_keys_keep_the_parts_of_a_sample_apart():
    assert len({key_of("ab", "c"), key_of("a", "bc"), key_of("abc"), key_of("ab", "c", "")}) == 4


RATED = "<analysis>\nTwo steps.\n</analysis>\n<difficulty>{}</difficulty>"


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        (RATED.format(7), 7.0),
        (RATED.format(" 10 "), 10.0),
        ("It is short. <difficulty>1</difficulty>", 1.0),
        (RATED.format(0), None),
        (RATED.format(11), None),
        (RATED.format("7.5"), None),
        (RATED.format("seven"), None),
        (RATED.format(3) + RATED.format(4), None),
        ("<difficulty>3</difficulty>\n<analysis>late</analysis>", None),
        ("<analysis>  </analysis><difficulty>3</difficulty>", None),
        ("difficulty: 3", None),
        ("", None),
    ],
)
def test_a_rating_is_read_strictly(text, rating):
    assert read_rating(text) == rating


def test_what_cannot_be_read_is_unscored_and_counted(samples):
    chat = ScriptedChat([RATED.format(4), "hard to say", None, RATED.format(9)])
    part = TeacherRating(TeacherChat(chat), "{question}")
    scores = part(samples)
    assert np.array_equal(scores, [4, math.nan, math.nan, 9], equal_nan=True)
    assert dict(part.causes) == {"the reply cannot be read (stop)": 1, "the request was refused": 1}


def test_a_teacher_is_asked_once_for_each_sample_and_prompt(samples):
    replies = {"": RATED.format(5)}
    first, again, other = (ScriptedChat(replies, name="same") for _ in range(3))
    scores = TeacherRating(TeacherChat(first), "{question}")(samples)
    assert TeacherRating(TeacherChat(again), "{question}")(samples).tolist() == scores.tolist() == [5.0] * 4
    TeacherRating(TeacherChat(other), "How hard is {question}?")(samples)
    assert [len(chat.asked) for chat in (first, again, other)] == [4, 0, 4]


def test_ratings_that_arrived_before_a_failure_are_kept(samples):
    replies = {"": RATED.format(5)}
    chat = ScriptedChat(replies, name="same", failures={2: ConnectionError()})
    with pytest.raises(ConnectionError):
        TeacherRating(TeacherChat(chat), "{question}")(samples)
    rest = ScriptedChat(replies, name="same")
    assert TeacherRating(TeacherChat(rest), "{question}")(samples).tolist() == [5.0] * 4
    assert len(rest.asked) == 2


def test_the_packaged_prompt_shows_question_and_answer_and_no_other_placeholder():
    asked: list[Request] = []

    def reply(request: Request) -> str:
        asked.append(request)
        return RATED.format(2)

    part = make_difficulty("teacher_rating", {"teacher": "scripted", "options": {"replies": []}})
    table = make_table({"prompt": ["print({question})\n"], "answer": ["# {answer}\n"]})
    TeacherRating(TeacherChat(ScriptedChat(reply)), part.prompt)(table)
    (system, user) = asked[0].messages
    assert (system[0], user[0]) == ("system", "user")
    assert "print({question})\n\n\nThe right answer:\n\n# {answer}\n" in user[1]
    assert asked[0].temperature == 0


def test_a_teacher_that_is_not_named_or_has_no_chat_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="needs a teacher"):
        make_difficulty("teacher_rating")
    with pytest.raises(RecipeError, match="it is no language model"):
        make_difficulty("teacher_rating", {"teacher": "oracle"})
    with pytest.raises(UnknownPart, match="did you mean 'oracle'"):
        make_difficulty("teacher_rating", {"teacher": "oracel"})
    scripted = {"teacher": "scripted", "options": {"replies": []}}
    (tmp_path / "mine.md").write_text("Rate it.")
    with pytest.raises(RecipeError, match=r"\{question\} is missing"):
        make_difficulty("teacher_rating", {**scripted, "prompt": str(tmp_path / "mine.md")})
    with pytest.raises(DataError, match="cannot be read"):
        make_difficulty("teacher_rating", {**scripted, "prompt": str(tmp_path / "nowhere.md")})


@pytest.fixture
def registered(monkeypatch):
    """Register difficulties for one test."""
    monkeypatch.setattr(DIFFICULTIES, "_entries", dict(DIFFICULTIES._entries))
    return DIFFICULTIES.register


def test_a_registered_difficulty_gets_the_services_that_its_positional_parameters_name(registered, samples):
    @registered("length_by_model")
    def length_by_model(open_chat, open_scorer, /, *, model: str):
        """A difficulty of somebody else's package."""
        scorer = open_scorer(model, batch=2)
        chat = open_chat("scripted", {"replies": []}, where="here")

        class Length(Difficulty):
            def __call__(self, samples, *, workers=1, events=ignore_events):
                return np.full(samples.num_rows, scorer.batch + len(chat.identity) * 0.0)

        return Length()

    assert make_difficulty("length_by_model", {"model": "OWNER/small"})(samples).tolist() == [2.0] * 4


def test_a_difficulty_that_requires_an_unknown_service_is_refused_by_name(registered):
    def other_service(database, /, *, limit: int = 1):
        """A difficulty of somebody else's package."""

    with pytest.raises(RecipeError, match=r"no positional parameter but open_scorer and open_chat, not \(database"):
        registered("other_service")(other_service)


@pytest.mark.parametrize(
    ("name", "options", "service"),
    [("loss", {"model": "OWNER/small"}, "a scorer"), ("teacher_rating", {"teacher": "scripted"}, "a chat")],
)
def test_a_factory_called_without_its_service_names_the_function_that_supplies_it(name, options, service):
    with pytest.raises(RecipeError, match=f"it needs {service}.*make_difficulty"):
        DIFFICULTIES.get(name)(**options)


def test_a_scoring_by_name_builds_difficulties_as_a_recipe_does(samples, registered):
    @registered("named_by_scorer")
    def named_by_scorer(open_scorer, /):
        """A difficulty of somebody else's package."""
        assert open_scorer("OWNER/small") == NamedScorer("OWNER/small")

        class Numbered(Difficulty):
            def __call__(self, samples, *, workers=1, events=ignore_events):
                return np.arange(samples.num_rows, dtype=np.float64)

        return Numbered()

    assert gradatim.score(samples, ["named_by_scorer"])["named_by_scorer"].to_pylist() == [0, 1, 2, 3]
