"""Does the report claim what the numbers allow, and no more?"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from io import StringIO

import pytest
from make_study import ARMS, make_run, make_study
from rich.console import Console

from gradatim.cli.main import main
from gradatim.reporting import collect, headline, markdown_table, summarise, terminal_table
from gradatim.reporting.data import CycleFacts
from gradatim.reporting.summary import count, p_value, percent, points

TWO = ("baseline", "hybrid")


def said(folder):
    return headline(summarise(collect(folder)))


def test_under_five_seeds_the_headline_says_they_are_too_few(tmp_path):
    found = said(make_study(tmp_path / "s", seeds=(1, 2, 3)))
    assert found.verdict == "too few"
    assert found.sentence == "No difference can be claimed with 3 seeds; that needs at least 5."
    assert "95\u00a0%\u00a0interval" in found.support[0]


def test_five_clear_seeds_say_that_the_ordering_helped_with_its_interval_and_p(tmp_path):
    found = said(make_study(tmp_path / "s", seeds=range(6), arms=TWO, noise=0.004))
    assert found.verdict == "helped"
    assert found.sentence.startswith("The ordering helped: Hybrid scores")
    assert "95\u00a0%\u00a0interval" in found.sentence
    assert "Holm" in found.sentence


def test_a_gain_that_restarts_give_as_well_is_not_put_down_to_the_order(tmp_path, monkeypatch):
    title, _, stages = ARMS["baseline-restarts"]
    monkeypatch.setitem(ARMS, "baseline-restarts", (title, ARMS["hybrid"][1], stages))
    found = said(make_study(tmp_path / "s", range(6), ("baseline", "baseline-restarts", "hybrid"), noise=0.004))
    assert found.verdict == "undecided"
    assert "not shown to be the cause" in found.sentence
    assert any("not significant" in line for line in found.support)


def test_a_gain_with_restarts_that_no_control_shares_is_not_put_down_to_the_order(tmp_path):
    folder = make_study(tmp_path / "s", seeds=range(6), arms=TWO, noise=0.004)
    study = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps({**study, "restarts": {"baseline": 0, "hybrid": 2}}))
    found = said(folder)
    assert found.verdict == "undecided"
    assert any("restarts 2 times more often" in line for line in found.support)


def test_an_ordering_that_is_clearly_worse_is_said_to_hurt(tmp_path):
    found = said(make_study(tmp_path / "s", seeds=range(6), arms=("baseline", "sequential"), noise=0.004))
    assert found.verdict == "hurt"
    assert "below the baseline" in found.sentence


def test_a_difference_lost_in_the_noise_is_no_difference_and_no_proof_of_none(tmp_path):
    found = said(make_study(tmp_path / "s", seeds=range(6), arms=("baseline", "incremental"), noise=0.1))
    assert found.verdict == "undecided"
    assert found.sentence.startswith("No difference can be claimed: the best arm, Incremental, scores")
    assert any("no proof" in line for line in found.support)


def test_the_headline_compares_the_same_seeds(tmp_path):
    folder = make_study(tmp_path / "s", seeds=(1, 2), arms=TWO, noise=0.05)
    shutil.rmtree(folder / "hybrid" / "seed-2")
    sentence = said(folder).support[0].replace("−", "-")
    arm, base, difference = map(float, re.findall(r"[-+]?[\d.]+(?=\u00a0[%p])", sentence))
    assert arm - base == pytest.approx(difference, abs=0.11)


def test_an_arm_with_too_few_seeds_does_not_silence_the_others(tmp_path):
    folder = make_study(tmp_path / "s", seeds=range(6), arms=("baseline", "incremental", "hybrid"), noise=0.004)
    for seed in range(1, 6):
        shutil.rmtree(folder / "hybrid" / f"seed-{seed}")
    found = said(folder)
    assert found.verdict == "helped"
    assert "Incremental" in found.sentence


def test_a_run_alone_is_told_without_comparison(tmp_path):
    found = said(make_run(tmp_path / "mine", "hybrid", 1))
    assert found.verdict == "single"
    assert "on 2,000 test programs" in found.sentence


def test_a_study_without_results_says_so(tmp_path):
    folder = make_study(tmp_path / "s", seeds=(1,), arms=TWO)
    for result in folder.glob("*/*/*/*/result.json"):
        result.unlink()
    assert said(folder).verdict == "empty"


def test_the_baseline_is_the_first_row_and_has_no_difference(tmp_path):
    summary = summarise(collect(make_study(tmp_path / "s", arms=("hybrid", "baseline"))))
    assert [row.arm for row in summary.rows] == ["baseline", "hybrid"]
    assert summary.rows[0].difference is None


def test_only_ordered_arms_are_compared_with_the_control(tmp_path):
    summary = summarise(collect(make_study(tmp_path / "s")))
    compared = [difference.arm for difference in summary.against["baseline-restarts"]]
    assert compared == ["sequential", "incremental", "hybrid"]


def test_intervals_over_items_are_per_run_and_never_pooled(tmp_path):
    row = summarise(collect(make_study(tmp_path / "s", seeds=(1, 2, 3)))).rows[0]
    assert [score.total for score in row.scores] == [2_000] * 3


def test_accuracy_is_told_with_and_without_twins(tmp_path):
    names = [measure.name for measure in summarise(collect(make_study(tmp_path / "s", (1,), TWO))).measures]
    assert "output, greedy, excluding equivalents of training programs" in names
    assert "output, greedy, equivalents of training programs" in names


def test_markdown_shows_every_seed_and_the_controls(tmp_path):
    text = markdown_table(collect(make_study(tmp_path / "s")))
    assert text.count("| Hybrid |") == 2
    assert "No difference can be claimed with 3 seeds" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert widths == {7, 8}


def test_a_title_cannot_break_the_markdown_table(tmp_path):
    study = make_study(tmp_path / "s", arms=TWO, titles={"hybrid": "a | b\n<b>"})
    line = next(line for line in markdown_table(collect(study)).splitlines() if line.startswith("| a "))
    assert line.startswith("| a \\| b &lt;b> |")


def test_the_terminal_table_shows_titles_as_they_are(tmp_path):
    table = terminal_table(collect(make_study(tmp_path / "s", arms=TWO, titles={"hybrid": "[red]mine[/red]"})))
    console = Console(width=140, file=StringIO())
    console.print(table)
    assert "[red]mine[/red]" in console.file.getvalue()
    assert table.row_count == 2


def test_a_run_shows_every_suite_before_training_and_at_the_end(tmp_path):
    folder = make_run(tmp_path / "run", "baseline", 1)
    (after,) = [json.loads(path.read_text()) for path in folder.glob("cycle-00/stage-*/result.json")]
    before = {**after["evaluations"][0], "counts": {"all": {"all": {"passed": 500, "total": 2000}}}}
    (folder / "cycle-00/base").mkdir()
    (folder / "cycle-00/base/evaluation-output-greedy.json").write_text(json.dumps(before))
    shares = {}
    for suite in after["evaluations"]:
        counts = suite["counts"]["all"]["all"]
        shares[f"{suite['suite']} ({suite['protocol']})"] = counts["passed"] / counts["total"]
    assert len(shares) == 4
    study = collect(folder)
    console = Console(width=160, file=StringIO())
    console.print(terminal_table(study))
    shown = console.file.getvalue().partition("Results by suite")[2].replace("\u00a0", " ").splitlines()
    for name, share in shares.items():
        (line,) = [line for line in shown if name in line]
        assert f"{100 * share:.1f} % (" in line
        assert ("25.0 % (23.2 % to 26.9 %)" in line) is (name == "output (greedy)")
        assert (f"{100 * share - 25:+.1f}" in line) is (name == "output (greedy)")
    assert "| line (greedy) | – | " in markdown_table(study)
    several = collect(make_study(tmp_path / "s", arms=TWO))
    assert "Results by suite" not in markdown_table(several)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (percent(0.7458), "74.6\u00a0%"), (percent(None), "–"), (points(0.0465), "+4.7"), (points(-0.012), "−1.2"),
        (points(-0.0001), "0.0"), (p_value(0.0004), "< 0.001"), (p_value(0.0234), "0.023"), (p_value(0.5), "0.50"),
        (count(1_080_000), "1.08\u00a0M"), (count(40_000), "40,000"), (count(None), "–"),
    ],
)  # fmt: skip
def test_numbers_are_written_for_people(text, written):
    assert text == written


def with_more_samples(study, factor, arms):
    """``study`` with ``factor`` times as many distinct training samples in ``arms``."""

    def scaled(run):
        tables = tuple(replace(table, rows=round((table.rows or 0) * factor)) for table in run.tables)
        return replace(run, tables=tables) if run.arm in arms else run

    return replace(study, runs=tuple(scaled(run) for run in study.runs))


def test_a_gain_with_more_distinct_samples_and_no_matching_control_is_not_a_gain_of_the_method(tmp_path):
    study = collect(make_study(tmp_path / "s", seeds=range(6), arms=TWO, noise=0.004))
    result = headline(summarise(with_more_samples(study, 2.5, ("hybrid",))))
    assert result.verdict == "undecided"
    assert result.sentence.endswith("but it has 2.5 times as many distinct training samples, which may be the cause.")
    assert any(line.startswith("Add a control with as many distinct samples") for line in result.support)


def test_distinct_samples_are_those_trained_on_not_those_requested(tmp_path):
    study = collect(make_study(tmp_path / "s", arms=TWO))

    def in_cycles(run):
        # Of 40 new questions of each arm 2 or 30 are equivalent to held-out samples.
        learnt, held_out = run.tables[0].rows, 2 if run.arm == "hybrid" else 30
        cycles = (CycleFacts(0), CycleFacts(1, rows=learnt + 40 - held_out, new=40, learnt=learnt))
        return replace(run, cycles=cycles)

    runs = [in_cycles(run) for run in study.runs]
    assert {run.samples - run.tables[0].rows for run in runs} == {38, 10}
    assert CycleFacts(1, new=40).new_samples == 40  # written by a version without the other counts
    assert CycleFacts(1, rows=90, new=0, learnt=90).new_samples == 0


@pytest.mark.parametrize(("gain", "verdict"), [(0.0, "helped"), (0.044, "undecided")])
def test_a_control_with_as_many_samples_decides_whether_the_method_helped(tmp_path, monkeypatch, gain, verdict):
    title, _, stages = ARMS["baseline-restarts"]
    monkeypatch.setitem(ARMS, "baseline-restarts", (title, gain, stages))
    arms = ("baseline", "baseline-restarts", "hybrid")
    study = collect(make_study(tmp_path / "s", seeds=range(6), arms=arms, noise=0.004))
    result = headline(summarise(with_more_samples(study, 2.5, ("hybrid", "baseline-restarts"))))
    assert result.verdict == verdict
    assert verdict == "helped" or any("which has as many: " in line for line in result.support)


@pytest.mark.parametrize(("change", "recognised"), [({"new": 4500}, True), ({"grade": "hard"}, False)])
def test_a_control_in_cycles_differs_from_the_baseline_in_numbers_only(tmp_path, change, recognised):
    study = collect(make_study(tmp_path / "s", seeds=range(6), arms=("baseline", "baseline-restarts", "hybrid")))
    settings = study.of("baseline")[0].settings

    def in_cycles(run):
        own = {**settings, "title": "More questions", "data": {**settings["data"], **change}}
        cycles = (CycleFacts(0, rows=run.tables[0].rows), CycleFacts(1, rows=run.tables[0].rows))
        return replace(run, cycles=cycles, settings=own if run.arm == "baseline-restarts" else run.settings)

    study = replace(study, runs=tuple(in_cycles(run) for run in study.runs))
    more = with_more_samples(study, 2.5, ("hybrid", "baseline-restarts"))
    matched = summarise(more).matched["hybrid"]
    assert [difference.against for difference in matched] == ["baseline-restarts"] * recognised
    unknown = replace(more, runs=tuple(replace(run, settings={}) for run in more.runs))
    assert summarise(unknown).matched["hybrid"] == ()


def test_a_gain_named_beside_another_has_its_qualification(tmp_path, monkeypatch):
    monkeypatch.setitem(ARMS, "sequential", ("Sequential", 0.09, ARMS["sequential"][2]))
    arms = ("baseline", "hybrid", "sequential")
    study = collect(make_study(tmp_path / "s", seeds=range(6), arms=arms, noise=0.004))
    result = headline(summarise(with_more_samples(study, 2.5, ("sequential",))))
    assert (result.verdict, result.sentence.startswith("The ordering helped: Hybrid")) == ("helped", True)
    (line,) = [line for line in result.support if line.startswith("Sequential scores")]
    assert line.endswith("but it has 2.5 times as many distinct training samples, which may be the cause.")


def test_a_loss_beside_a_gain_has_no_qualification(tmp_path, monkeypatch):
    monkeypatch.setitem(ARMS, "sequential", ("Sequential", -0.09, ARMS["sequential"][2]))
    study = collect(make_study(tmp_path / "s", seeds=range(6), arms=("baseline", "hybrid", "sequential"), noise=0.004))
    result = headline(summarise(with_more_samples(study, 2.5, ("sequential",))))
    (line,) = [line for line in result.support if line.startswith("Sequential scores")]
    assert line.endswith("after Holm).")


def test_a_gain_with_restarts_beside_another_is_not_attributed_to_the_ordering(tmp_path, monkeypatch):
    monkeypatch.setitem(ARMS, "sequential", ("Sequential", 0.09, ARMS["sequential"][2]))
    study = collect(make_study(tmp_path / "s", seeds=range(6), arms=("baseline", "hybrid", "sequential"), noise=0.004))
    result = headline(replace(summarise(study), restarts={"baseline": 0, "hybrid": 0, "sequential": 2}))
    assert result.sentence.startswith("The ordering helped: Hybrid")
    (line,) = [line for line in result.support if line.startswith("Sequential scores")]
    assert line.endswith(", but the ordering is not shown to be the cause.")
    alone = headline(replace(summarise(study), restarts={"baseline": 0, "hybrid": 2, "sequential": 2}))
    assert alone.verdict == "undecided"
    assert any(line.startswith("Its learning rate restarts 2 times more often") for line in alone.support)


def test_a_control_with_more_samples_has_the_qualification_too(tmp_path, monkeypatch):
    title, _, stages = ARMS["baseline-restarts"]
    monkeypatch.setitem(ARMS, "baseline-restarts", (title, 0.05, stages))
    study = collect(make_study(tmp_path / "s", seeds=range(6), arms=("baseline", "baseline-restarts"), noise=0.004))
    result = headline(summarise(with_more_samples(study, 2.5, ("baseline-restarts",))))
    assert result.sentence.startswith("No arm with an order is compared, only controls.")
    assert result.sentence.endswith("which may be the cause.")


def test_too_few_seeds_come_with_the_difference_they_detect_and_the_seeds_that_others_need(tmp_path):
    support = said(make_study(tmp_path / "s", seeds=(1, 2, 3), noise=0.04)).support
    line = next(line for line in support if line.startswith("With 5 seeds"))
    detected = float(re.search(r"of ([\d.]+) points is found", line)[1])
    needed = [int(seeds) for seeds in re.findall(r"points? at (\d+) seeds", line)]
    assert detected > 2
    assert needed == sorted(needed, reverse=True)
    assert needed[-1] >= 5


def test_power_of_a_study_is_printed_without_a_run(tmp_path, capsys):
    folder = make_study(tmp_path / "s", seeds=(1, 2, 3), noise=0.04)
    before = sorted(path.stat().st_mtime_ns for path in folder.rglob("*"))
    assert main(["study", "demo", "--out", str(folder), "--power", "--seeds", "8"]) == 0
    more = float(re.search(r"With 8 seeds .* difference of ([\d.]+) points", capsys.readouterr().out)[1])
    assert main(["study", "demo", "--out", str(folder), "--power"]) == 0
    assert more < float(re.search(r"With 5 seeds .* difference of ([\d.]+) points", capsys.readouterr().out)[1])
    assert sorted(path.stat().st_mtime_ns for path in folder.rglob("*")) == before


@pytest.mark.parametrize(("seeds", "fault"), [((), "no study to take the spread from"), ((1,), "two finished seeds")])
def test_power_without_enough_runs_is_one_line(tmp_path, capsys, seeds, fault):
    folder = make_study(tmp_path / "s", seeds=seeds) if seeds else tmp_path / "nowhere"
    assert main(["study", "demo", "--out", str(folder), "--power"]) == 2
    error = capsys.readouterr().err
    assert fault in error
    assert error.count("\n") == 1
