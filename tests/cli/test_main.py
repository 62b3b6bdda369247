"""The command itself: help, exit codes, what errors look like."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gradatim.cli.main import COMMANDS, load_command, main
from gradatim.errors import Stopped

VERBS = (
    "generate", "score", "plan", "run", "study", "resume", "evaluate", "check", "sample", "report", "compare",
    "show", "export", "track", "doctor", "list",
)  # fmt: skip


def test_without_arguments_there_is_help_and_no_error(gradatim):
    said = gradatim()
    assert said.status == 0
    assert all(verb in said.out for verb in VERBS)
    assert said.err == ""


def test_every_registered_verb_is_one_we_know_and_its_help_has_an_example(gradatim):
    assert set(COMMANDS) == set(VERBS)
    for verb in VERBS:
        said = gradatim(verb, "--help")
        assert said.status == 0
        assert f"gradatim {verb}" in said.out.split("Examples")[1]


@pytest.mark.parametrize("verb", VERBS)
def test_the_list_of_commands_has_the_first_sentence_of_each_command(verb):
    assert load_command(verb).get_short_help_str(limit=200) == COMMANDS[verb][1]


@pytest.mark.parametrize(("words", "expected"), [("gradatim pl", "plan"), ("gradatim plan --no", "--no-data")])
def test_a_shell_completes_commands_and_their_options(words, expected, tmp_path):
    place = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    done = subprocess.run(
        [sys.executable, "-m", "gradatim"],
        env={**os.environ, "_GRADATIM_COMPLETE": "complete_bash", **place},
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.split() == [expected]


def test_defaults_in_brackets_are_not_swallowed_by_the_markup_of_help(gradatim):
    assert "(default: all)" in " ".join(gradatim("generate", "--help").out.replace("│", " ").split())


def test_the_version_is_that_of_the_package(gradatim):
    from importlib.metadata import version

    assert gradatim("--version").out == f"gradatim {version('gradatim')}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frobnicate"], "No such command 'frobnicate'; try: gradatim --help"),
        (["generate"], "Missing argument 'OUT'; try: gradatim generate --help"),
        (["generate", "a.txt", "--count", "many"], "gradatim generate --help"),
        (["plan", "smoke/baseline", "--tokens", "3"], "--tokens"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_and_exit_2(gradatim, arguments, words):
    said = gradatim(*arguments)
    assert said.status == 2
    assert words in said.err
    assert said.err.startswith("gradatim: ")
    assert said.err.count("\n") == 1


def test_what_steers_a_terminal_is_not_shown_in_an_error(gradatim):
    said = gradatim("plan", "no\x1b]0;title\x07\u202esuch")
    assert said.status == 2
    assert not any(each in said.err for each in "\x1b\x07\u202e")
    assert "title" in said.err


def test_a_fault_of_ours_shows_its_traceback(gradatim, monkeypatch):
    def broken(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("gradatim.cli.training.load", broken)
    said = gradatim("plan", "smoke/baseline")
    assert said.status == 1
    assert "Traceback" in said.err
    assert said.err.endswith("please report it with the traceback above\n")


def test_the_module_runs_like_the_command_and_gives_its_exit_code_to_the_shell():
    done = subprocess.run(
        [sys.executable, "-m", "gradatim", "plan", "smoke/baselin"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "did you mean 'smoke/baseline'?" in done.stderr


def test_a_reader_that_has_enough_hears_no_complaint():
    for verb in ("list", "list --json"):
        command = f"{sys.executable} -m gradatim {verb} | true"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
        assert done.stderr == ""


def test_stopped_work_that_left_nothing_does_not_claim_that_it_goes_on(gradatim, monkeypatch):
    def stop(*arguments: object, **options: object) -> None:
        raise Stopped("stopped")

    monkeypatch.setattr("gradatim.programs.stream", stop)
    said = gradatim("generate", "a.txt", "--count", 3)
    assert (said.status, said.err) == (130, "gradatim: stopped; nothing was written\n")


def test_main_takes_the_arguments_of_the_process_when_it_is_given_none(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gradatim", "--version"])
    assert main() == 0
    assert capsys.readouterr().out.startswith("gradatim ")
