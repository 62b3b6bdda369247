"""McNemar's exact test between stages, arms and single evaluations, corrected by Holm."""

import json
import math
from pathlib import Path

import pytest
from make_study import make_study
from verdict_files import verdicts_of, write_evaluation

from gradatim.cli.main import main
from gradatim.errors import DataError, RunFolderError, UserError
from gradatim.evaluation.paired_items import compare_items
from gradatim.reporting import compare_models
from gradatim.results import write_verdicts
from gradatim.stage import Verdicts


def binomial(won: int, lost: int) -> float:
    """The two-sided exact p by its definition: twice the smaller tail of Binomial(n, 1/2)."""
    n = won + lost
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(min(won, lost) + 1)) / 2**n)


def test_counts_p_and_holm_follow_their_definitions() -> None:
    reference = {str(n): n < 10 for n in range(40)}
    better = {str(n): n < 22 or n == 39 for n in range(1, 40)}  # item 0 is missing
    same = dict(reference)
    rows = compare_items({"r": reference, "b": better, "s": same}, [("b", "r"), ("s", "r")])
    assert [(row.both, row.won, row.lost, row.neither, row.unmatched) for row in rows] == [
        (9, 13, 0, 17, 1),
        (10, 0, 0, 30, 0),
    ]
    assert rows[0].p == pytest.approx(binomial(13, 0))
    assert rows[0].p_holm == pytest.approx(2 * binomial(13, 0))
    assert rows[1].p == rows[1].p_holm == 1
    assert rows[0].difference == pytest.approx(13 / 39)


def test_a_study_compares_each_arm_with_the_baseline_seed_by_seed(tmp_path: Path) -> None:
    study = make_study(tmp_path, seeds=(1, 2), arms=("baseline", "hybrid"))
    for arm, right in (("baseline", 20), ("hybrid", 32)):
        for seed in (1, 2):
            stage = max((study / arm / f"seed-{seed}").glob("cycle-00/stage-*"))
            write_evaluation(stage, [number < right - seed for number in range(50)])
    rows = compare_models([study])
    assert [(row.model, row.reference, row.won, row.lost) for row in rows] == [
        (f"hybrid, seed {seed}", f"baseline, seed {seed}", 12, 0) for seed in (1, 2)
    ]
    assert rows[0].p_holm == pytest.approx(2 * binomial(12, 0))


def test_a_run_compares_each_stage_with_the_one_before(tmp_path: Path) -> None:
    for stage, right in enumerate((3, 9, 7)):
        write_evaluation(tmp_path / "cycle-00" / f"stage-0{stage}-s{stage}", [number < right for number in range(12)])
    rows = compare_models([tmp_path])
    assert [(row.model, row.reference, row.won, row.lost) for row in rows] == [
        ("stage 1 s1", "stage 0 s0", 6, 0),
        ("stage 2 s2", "stage 1 s1", 0, 2),
    ]


def test_files_of_evaluate_and_check_and_kept_folders_are_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"HumanEval/{number}" for number in range(6)]
    write_verdicts(verdicts_of([True, True, False, False, False, False], names), tmp_path / "a.parquet")
    rows = [
        {"task_id": name, "draw": 0, "outcome": "passed" if n < 5 else "failed", "reason": "", "cpu_seconds": 0.1,
         "key": "k"}
        for n, name in enumerate(names)
    ]  # fmt: skip
    kept = tmp_path / "kept" / "0123456789abcdef"
    kept.mkdir(parents=True)
    for path in (tmp_path / "b.verdicts.jsonl", kept / "verdicts.jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    paths = [str(tmp_path / name) for name in ("a.parquet", "b.verdicts.jsonl", "kept")]
    assert main(["compare", *paths, "--json"]) == 0
    for row in json.loads(capsys.readouterr().out):
        assert (row["won"], row["lost"], row["both"], row["neither"]) == (3, 0, 2, 1)
        assert (row["p"], row["p_holm"]) == (0.25, 0.5)


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_verdicts(verdicts_of([True, False]), tmp_path / "a.parquet")
    write_verdicts(verdicts_of([True, False], ["x", "y"]), tmp_path / "other.parquet")
    several = Verdicts(("item-0",), (0,), ("failed",), (3,), (5,))
    write_verdicts(several, tmp_path / "several.parquet")
    cases = {
        ("a.parquet",): (UserError, "nothing to be compared with"),
        ("a.parquet", "a.parquet"): (UserError, "named twice"),
        ("a.parquet", "other.parquet"): (DataError, "no item in common"),
        ("a.parquet", "several.parquet"): (DataError, "one verdict per item"),
        ("a.parquet", "nowhere.jsonl"): (UserError, "no such file"),
        ("a.parquet", "."): (UserError, "no verdicts here"),
    }
    for names, (kind, words) in cases.items():
        with pytest.raises(kind, match=words):
            compare_models([tmp_path / name for name in names])
    assert main(["compare", str(tmp_path / "a.parquet")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_study_without_verdicts_says_what_is_missing(tmp_path: Path) -> None:
    study = make_study(tmp_path, seeds=(1,), arms=("baseline", "hybrid"))
    for arm in ("baseline", "hybrid"):
        stage = max((study / arm / "seed-1").glob("cycle-00/stage-*"))
        write_evaluation(stage, [True])
        (stage / "evaluation-output.parquet").unlink()
    with pytest.raises(RunFolderError, match="counts only"):
        compare_models([study])
