"""Tokens to a target accuracy: interpolation, censoring, and paired ratios whose bounds claim no more than is known."""

import json
import math
import random
from pathlib import Path
from statistics import fmean, stdev

import pytest
from make_study import BUDGET, make_study
from scipy.stats import t

from gradatim.cli.main import main
from gradatim.reporting import collect, markdown_table, write_report
from gradatim.reporting.data import AccuracyPoint
from gradatim.reporting.target import Reach, accuracy_curves, compare_reaches, reach, to_target


def points(*shares: tuple[int, int]) -> list[AccuracyPoint]:
    return [AccuracyPoint(tokens, tokens / 100, passed, 100) for tokens, passed in shares]


def known(*values: float) -> list[Reach]:
    """A value per seed; a negative one is the end of a run that stayed below the target."""
    return [Reach(seed, abs(value), value if value > 0 else math.inf) for seed, value in enumerate(values)]


def test_the_first_crossing_is_interpolated_between_two_examinations() -> None:
    curve = points((100, 20), (200, 60), (300, 50), (400, 90))
    assert reach(curve, 0.4, "tokens", 7) == Reach(7, 150.0, 150.0)
    assert reach(curve, 0.6, "tokens", 7) == Reach(7, 200.0, 200.0)
    assert reach(curve, 0.7, "tokens", 7) == Reach(7, 350.0, 350.0)
    assert reach(curve, 0.4, "seconds", 7) == Reach(7, 1.5, 1.5)


def test_a_run_below_the_target_is_censored_at_its_end_and_one_above_from_its_start_on_the_left() -> None:
    curve = points((100, 20), (200, 60))
    assert reach(curve, 0.7, "tokens", 1) == Reach(1, 200.0, math.inf)
    assert reach(curve, 0.1, "tokens", 1) == Reach(1, 0.0, 100.0)
    assert reach([], 0.1, "tokens", 1) is None


def test_without_censoring_the_ratio_is_students_t_on_the_log_scale() -> None:
    arm, base = [2.0, 3.0, 2.5, 2.2, 2.9], [4.0, 4.4, 3.9, 5.0, 4.1]
    (ratio,) = compare_reaches({"a": known(*arm), "b": known(*base)}, ["a"], "b")
    logs = [math.log(one / two) for one, two in zip(arm, base, strict=True)]
    half = float(t.ppf(0.975, 4)) * stdev(logs) / math.sqrt(5)
    assert ratio.kind == "exact"
    assert ratio.mean == pytest.approx(math.exp(fmean(logs)))
    assert ratio.interval is not None
    assert (ratio.interval.low, ratio.interval.high) == pytest.approx(
        (math.exp(fmean(logs) - half), math.exp(fmean(logs) + half))
    )
    assert ratio.significant()


def test_a_baseline_that_never_gets_there_gives_an_upper_bound_and_no_lower_end() -> None:
    values = {"a": known(2.0, 2.1, 2.2, 2.3, 2.05), "b": known(-5.0, -5.0, 4.9, -5.0, -5.0)}
    (ratio,) = compare_reaches(values, ["a"], "b")
    assert (ratio.kind, ratio.censored) == ("at most", 4)
    assert ratio.mean == pytest.approx(math.exp(fmean(math.log(a / b) for a, b in zip(
        (2.0, 2.1, 2.2, 2.3, 2.05), (5.0, 5.0, 4.9, 5.0, 5.0), strict=True))))  # fmt: skip
    assert ratio.interval is not None
    assert ratio.interval.low == 0
    assert ratio.interval.high < 0.5
    assert ratio.significant()


def test_an_arm_that_never_gets_there_gives_a_lower_bound() -> None:
    (ratio,) = compare_reaches({"a": known(-5.0, -5.0, -5.0), "b": known(2.0, 2.5, 2.2)}, ["a"], "b")
    assert ratio.kind == "at least"
    assert ratio.interval is not None
    assert ratio.interval.high == math.inf
    assert ratio.interval.low > 1


def test_bounds_that_favour_the_censored_side_give_no_p() -> None:
    values = {"a": known(4.0, 4.2, 4.1, 4.4, 4.3), "b": known(-3.0, -3.0, -3.1, -3.0, -3.0)}
    (ratio,) = compare_reaches(values, ["a"], "b")
    assert (ratio.kind, ratio.p) == ("at most", None)
    assert "which arm is faster" in str(ratio.undefined)


def test_pairs_that_leave_both_sides_open_give_no_estimate() -> None:
    values = {"a": known(2.0, -5.0, 2.2), "b": known(-5.0, 3.0, 4.0)}
    (ratio,) = compare_reaches(values, ["a"], "b")
    assert (ratio.mean, ratio.interval, ratio.p) == (None, None, None)
    assert "lower target" in str(ratio.undefined)


def test_p_values_are_corrected_over_the_arms_and_few_seeds_claim_nothing() -> None:
    base = known(4.0, 4.4, 3.9, 5.0)
    values = {"b": base, "c": known(2.0, 2.1, 2.2, 2.3), "d": known(4.1, 4.3, 4.0, 4.8)}
    one, two = compare_reaches(values, ["c", "d"], "b")
    assert one.p is not None
    assert one.p_holm == pytest.approx(2 * one.p)
    assert two.p_holm == two.p
    assert not one.significant()


def test_a_true_ratio_of_one_is_rarely_claimed_with_censored_runs() -> None:
    """Runs of both arms from one law, censored at the budget: at most 5 % of studies claim a difference."""
    chance, claims = random.Random(0), 0
    studies = 1500
    for _ in range(studies):
        values = {
            arm: known(*(time if (time := chance.lognormvariate(0, 0.3)) < 1.1 else -1.1 for _ in range(6)))
            for arm in "ab"
        }
        claims += compare_reaches(values, ["a"], "b")[0].significant()
    assert claims / studies <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)


@pytest.fixture(scope="module")
def examined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five seeds of two arms, examined four times in a stage; the baseline ends below 70 %."""
    study = make_study(tmp_path_factory.mktemp("target") / "study", seeds=range(1, 6), arms=("baseline", "hybrid"))
    for arm, final in (("baseline", 1380), ("hybrid", 1600)):
        for seed in range(1, 6):
            run = study / arm / f"seed-{seed}"
            path = max(run.glob("cycle-00/stage-*/result.json"))
            result = json.loads(path.read_text())
            result["evaluations"][0]["counts"]["all"]["all"]["passed"] = final + seed
            path.write_text(json.dumps(result))
            start = BUDGET - result["fitted"]["tokens"]
            rows = [
                {
                    "cycle": 0, "stage": result["index"], "step": 1000 + n,
                    "run_tokens": start + result["fitted"]["tokens"] * n // 5,
                    "evaluations": [{"suite": "output", "protocol": "greedy", "split": "test",
                                     "passed": final + seed - 200 * (5 - n), "total": 2000}],
                }
                for n in range(1, 5)
            ]  # fmt: skip
            with (run / "metrics.jsonl").open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
    return study


def test_the_report_tells_tokens_and_seconds_and_shows_censored_runs(examined: Path, tmp_path: Path) -> None:
    text = markdown_table(collect(examined, targets=(0.7,)))
    lines = text.split("Tokens to 70")[1].splitlines()
    baseline, hybrid = (next(line for line in lines if line.startswith(f"| {name}")) for name in ("Base", "Hyb"))
    assert "0 of 5" in baseline
    assert baseline.count(">") == 5
    assert "5 of 5" in hybrid
    assert "≤" in hybrid
    assert "up to" in hybrid
    assert "Training seconds to 70" in text
    page = write_report(examined, tmp_path / "page.html", targets=(0.7,)).read_text()
    assert "Tokens to 70" in page
    assert "Accuracy over training tokens" in page


def test_without_a_target_there_is_no_table_and_without_examinations_no_figure(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", seeds=(1,), arms=("baseline", "hybrid"))
    assert "Tokens to" not in markdown_table(collect(study))
    assert "Accuracy over training tokens" not in write_report(study, tmp_path / "page.html").read_text()
    # The ends of the stages are examinations too.
    assert to_target(collect(study), 0.5).rows[1].reached == 1


def test_curves_have_the_mean_and_interval_of_the_interpolated_seeds(examined: Path) -> None:
    curve = accuracy_curves(collect(examined))["hybrid"]
    assert [point.seeds for point in curve] == [5] * len(curve)
    assert curve[-1].mean == pytest.approx(fmean((1600 + seed) / 2000 for seed in range(1, 6)))
    assert curve[-1].interval is not None
    assert curve[-1].interval.low < curve[-1].mean < curve[-1].interval.high


@pytest.mark.parametrize("word", ["0", "101", "many", "nan"])
def test_a_target_that_is_no_percentage_is_one_line(
    word: str, examined: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(examined), "--markdown", "--target", word]) == 2
    assert "--target" in capsys.readouterr().err
