"""Bad input about processes: one clear line, exit code 2, and nothing started."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradatim.cli.main import main
from gradatim.errors import UserError
from gradatim.processes import Launch, check_devices, launch

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_the_variables_of_a_launcher_are_obeyed(environment: pytest.MonkeyPatch) -> None:
    assert launch() == Launch(0, 1, 0, 1)
    for name, value in zip(VARIABLES, ("5", "8", "1", "4"), strict=True):
        environment.setenv(name, value)
    assert launch() == Launch(5, 8, 1, 4)
    environment.setenv("WORLD_SIZE", "1")
    assert launch() == Launch()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"WORLD_SIZE": "2"}, "RANK.*given: nothing; allowed: a number from 0 to 1"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK.*given: '2'; allowed: a number from 0 to 1"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE.*given: 'two'; allowed: a number from 1"),
    ],
)
def test_a_variable_that_is_no_rank_is_refused(
    values: dict[str, str], message: str, environment: pytest.MonkeyPatch
) -> None:
    for name, value in values.items():
        environment.setenv(name, value)
    with pytest.raises(UserError, match=message):
        launch()


def test_every_process_needs_a_device_of_the_same_kind() -> None:
    check_devices([("a", "cpu", 0, 0), ("a", "cpu", 0, 1)])
    check_devices([("a", "cuda", 2, 0), ("a", "cuda", 2, 1), ("b", "cuda", 2, 0)])
    with pytest.raises(
        UserError, match=r"process 1 on b: all processes need the same kind.*given: cpu; process 0 has cud"
    ):
        check_devices([("a", "cuda", 1, 0), ("b", "cpu", 0, 0)])
    with pytest.raises(UserError, match=r"process 1 on a: each process needs a cuda device.*at most 1 processes"):
        check_devices([("a", "cuda", 1, 0), ("a", "cuda", 1, 1)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--processes", "3"], "train.batch_size: a step cannot be divided evenly among 3 processes"),
        (["--processes", "16"], "allowed: 1, 2, 4, 8 processes; try: --set train.batch_size=16"),
    ],
)
def test_a_batch_that_cannot_be_divided_is_refused_before_anything_starts(
    words: list[str], message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], environment: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    assert main(["run", "smoke/baseline", "--out", str(folder), *words]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert message in line
    assert not folder.exists()


def test_the_option_and_a_launcher_must_agree(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("WORLD_SIZE", "2")
    environment.setenv("RANK", "0")
    assert main(["run", "smoke/baseline", "--out", str(tmp_path / "run"), "--processes", "4"]) == 2
    assert "given: 4, and WORLD_SIZE=2; try: without --processes" in capfd.readouterr().err


def test_a_study_is_no_training_of_several_processes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("WORLD_SIZE", "2")
    environment.setenv("RANK", "0")
    assert main(["study", "smoke", "--out", str(tmp_path / "study"), "--arms", "baseline", "--seeds", "1"]) == 2
    assert "a study starts its own processes" in capfd.readouterr().err
