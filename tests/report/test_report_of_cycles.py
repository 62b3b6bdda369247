"""Does the report tell of several cycles what their folders say, and nothing of runs that have one?"""

from __future__ import annotations

import json
from io import StringIO

import pytest
from make_cycles import TOKENS, make_cycles
from make_study import make_run
from rich.console import Console
from test_page import HOSTILE, read

from gradatim.evaluation.statistics import t_interval, wilson_interval
from gradatim.reporting import collect, headline, markdown_table, summarise, terminal_table
from gradatim.reporting.charts import charts
from gradatim.reporting.cycles import (
    accuracy_by_cycle,
    cycle_rows,
    example_questions,
    level_rows,
    teacher_use,
)
from gradatim.reporting.figures import schedule_shares, shares_of
from gradatim.reporting.html import render
from gradatim.stage import StageSpec


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_cycles(tmp_path_factory.mktemp("runs") / "mine")


@pytest.fixture(scope="module")
def study(folder):
    return collect(folder)


@pytest.fixture(scope="module")
def page(study):
    return render(study)


def seeds_of(folder, right):
    """A study of one arm, a seed for each list of right answers."""
    for seed, each in enumerate(right):
        make_cycles(folder / "arm" / f"seed-{seed}", seed=seed, right=each)
    names = {
        "title": "T",
        "arms": [{"name": "arm", "title": "Arm"}],
        "seeds": list(range(len(right))),
        "baseline": "arm",
    }
    (folder / "study.json").write_text(json.dumps(names))
    return collect(folder)


def test_each_cycle_has_the_score_of_its_last_stage_with_wilsons_interval_for_one_seed(tmp_path):
    study = collect(make_cycles(tmp_path / "mine", stages=3))
    rows = cycle_rows(study, summarise(study))
    assert [(row.cycle, row.mean) for row in rows] == [(0, 0.2), (1, 0.35), (2, 0.5)]
    assert rows[1].interval == wilson_interval(35, 100)


def test_several_seeds_have_students_interval_over_seeds_and_means_of_counts(tmp_path):
    study = seeds_of(tmp_path, [(10, 20), (10, 40), (10, 60)])
    first, second = cycle_rows(study, summarise(study))
    assert second.interval == t_interval([0.2, 0.4, 0.6])
    assert second.mean == pytest.approx(0.4)
    assert first.interval is None  # three equal values
    assert second.refused == {"same_program": 7}


def test_a_cycle_that_a_seed_did_not_reach_counts_the_runs_that_did(tmp_path):
    study = seeds_of(tmp_path, [(10, 20), (10, 20, 30)])
    assert [len(row.scores) for row in cycle_rows(study, summarise(study))] == [2, 2, 1]


def test_feedback_and_faulty_answers_are_told_by_cycle(study):
    rows = cycle_rows(study, summarise(study))
    assert [row.grades for row in rows] == [
        {"easy": 10, "middle": 5, "hard": 30, "unjudged": 4},
        {"easy": 20, "middle": 5, "hard": 30, "unjudged": 4},
        {},
    ]
    assert [row.rejected for row in rows] == [
        {"mutation": 50, "none": 10},
        {"student": 40, "mutation": 50, "none": 10},
        {"student": 40, "mutation": 50, "none": 10},
    ]
    assert rows[1].discarded == {"student": 3}
    assert rows[0].unjudged == {"rubric: the teacher gave no points that could be read": 4}
    assert [cycle for _, cycle, _, _ in level_rows(study, summarise(study))] == [0, 1]


def test_teacher_tokens_and_cost_add_up_over_cycles(study):
    uses = teacher_use(study, summarise(study))
    assert [(use.cycle, use.purpose) for use in uses] == [
        (0, "judging feedback"), (1, "questions and answers"), (1, "judging feedback"),
        (2, "questions and answers"), (None, "total"),
    ]  # fmt: skip
    every = uses[-1].counts
    assert every["prompt_tokens"] == 2 * 3000 + 2 * 4900
    assert every["cost"] == pytest.approx(2 * 0.25 + 2 * 0.5)
    assert every["paid"] == pytest.approx(2 * 0.2 + 2 * 0.5)
    assert every["failed"] == 4


def test_a_lesson_leads_from_an_attempt_to_the_question_written_after_it(study):
    ((_, seed, found),) = example_questions(study, summarise(study))
    assert seed == 1
    assert {lesson.cycle for lesson in found} == {0, 1}
    assert [lesson.grade for lesson in found[:2]] == ["hard", "easy"]
    assert (found[0].question, found[0].new_question) == ("print(0)\n# output\n", "print(0 + 1)\n# output\n")
    assert not any("older cycle" in lesson.new_question for lesson in found)


def test_the_page_tells_cycle_by_cycle(page):
    ids = read(page).ids
    assert len(ids) == len(set(ids))
    assert "Results by cycle" in page
    for words in ("35.0\u00a0%", "same_program", "Teacher usage", "new question", "cycles per run"):
        assert words in page
    assert "3 × " not in page
    assert "100 to 300" in page  # samples: they grow


def test_a_run_of_one_cycle_has_no_such_section(tmp_path):
    folder = make_run(tmp_path / "one", "hybrid", 1)
    study = collect(folder)
    assert not study.several_cycles
    assert cycle_rows(study, summarise(study)) == ()
    assert "Results by cycle" not in markdown_table(study)


def test_hostile_texts_of_students_and_teachers_stay_text(tmp_path):
    study = collect(make_cycles(tmp_path / "bad", texts=HOSTILE))
    page = render(study)
    tags = read(page).tags
    assert tags.count("script") == 3
    assert "img" not in tags
    assert page.count("&lt;script&gt;") > 20
    assert "<script>" not in markdown_table(study)


def test_tokens_of_all_cycles_are_summed_and_the_last_cycle_is_compared(tmp_path):
    study = collect(make_cycles(tmp_path / "mine", stages=2))
    assert study.runs[0].tokens == 6 * TOKENS
    assert summarise(study).rows[0].mean == 0.5
    assert study.runs[0].last_stages == {0: 1, 1: 3, 2: 5}


def test_a_run_that_ended_early_says_why(tmp_path):
    study = collect(make_cycles(tmp_path / "mine", dry="the source has run dry in cycle 3: no new question"))
    assert any("ended after 3 cycles" in note and "run dry in cycle 3" in note for note in study.notes)
    assert "Fewer new questions than requested: In cycles, cycle 2" in markdown_table(study)


def test_markdown_and_terminal_tell_cycle_by_cycle(study):
    text = markdown_table(study)
    assert (
        "| In cycles | 1 | 35.0\u00a0% | 26.4\u00a0% to 44.7\u00a0% | 200 | 100 | 7 | 20/5/30 | 4 | 40/50/0/10 |"
        in text
    )
    assert "| In cycles | total | 158 |" in text
    out = StringIO()
    Console(file=out, width=200).print(terminal_table(study))
    assert "20/5/30" in out.getvalue()


def test_a_gain_in_cycles_is_not_put_down_to_an_order(tmp_path):
    arms = {"baseline": (10, 20), "other": (10, 70)}
    for arm, right in arms.items():
        for seed in range(6):
            make_cycles(
                tmp_path / arm / f"seed-{seed}", seed=seed, right=(right[0], right[1] + seed % 2 * (arm == "other"))
            )
    known = [{"name": arm, "title": arm.title()} for arm in arms]
    (tmp_path / "study.json").write_text(json.dumps({"arms": known, "seeds": list(range(6)), "baseline": "baseline"}))
    found = headline(summarise(collect(tmp_path)))
    assert found.verdict == "helped"
    assert found.sentence.startswith("The training method helped: Other scores")


def test_what_cannot_be_read_of_a_cycle_is_named_and_the_rest_is_shown(tmp_path):
    folder = make_cycles(tmp_path / "mine")
    (folder / "cycle-00" / "feedback.parquet").write_bytes(b"PAR1 no more")
    content = json.loads((folder / "cycle-01" / "table.json").read_text())
    content["facts"]["source"]["refused"] = {"cause": "many"}
    (folder / "cycle-01" / "table.json").write_text(json.dumps(content))
    study = collect(folder)
    assert any("cycle-00: the examples cannot be read" in note for note in study.notes)
    assert any("cycle-01: the data on this cycle is skipped" in note for note in study.notes)
    assert not any(str(tmp_path) in note for note in study.notes)
    assert [row.new for row in cycle_rows(study, summarise(study))] == [100, None, 100]


def test_drawings_of_cycles_have_their_parts(study):
    rows = cycle_rows(study, summarise(study))
    assert "cycle 2" in accuracy_by_cycle(study, rows)
    drawn = charts(study, summarise(study), rows)["charts"]
    assert "cycle 1 · 59 questions" in [row["label"] for row in drawn["feedback"]["rows"]]
    assert "mutation" in drawn["rejected"]["names"]
    assert schedule_shares(study) is None  # three stages of all bands: bars tell as much


def test_many_stages_are_drawn_over_tokens_with_progress_by_band(tmp_path):
    study = collect(make_cycles(tmp_path / "mine", stages=4))
    drawn = schedule_shares(study)
    for words in ("share of the stage", "validation loss", "accuracy", "training tokens"):
        assert words in drawn
    stage = study.runs[0].stages[1]
    assert shares_of(stage, ("easy", "medium", "hard")) == ((0, 1, 0), (0, 1, 0))


def test_a_mixture_is_drawn_as_it_moves_not_as_the_samples_it_draws_on(study):
    from dataclasses import replace

    moving = StageSpec("all", (1, 1, 1), 100, mixture=((1.0, 0.0, 0.0), (0.0, 0.5, 0.5)))
    assert shares_of(replace(study.runs[0].stages[0], spec=moving), ("easy", "medium", "hard")) == moving.mixture
