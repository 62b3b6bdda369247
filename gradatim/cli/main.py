"""The command ``gradatim``: its commands, error messages and exit codes.

An error is one line on stderr, ``gradatim: where: what; given; allowed; try``. Exit codes: 2 for invalid input, 1 for
failed work, 130 for an interrupt. Only an unexpected exception, a bug in Gradatim, shows a traceback.
"""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from ..errors import GradatimError, Stopped, UserError
from . import check, data, environment, models, training
from .output import ReaderGone, careful_streams, check_output_stream, open_streams

# Typer bundles click and exports its error class only as a base of this subclass.
CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="gradatim",
    help="Train small code language models by curriculum learning and iterative distillation.",
    epilog="First run: [bold]gradatim run demo/baseline[/bold] (about two minutes). Examples: gradatim COMMAND --help.",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _verb(name: str, function: Callable[..., None], examples: Sequence[str]) -> None:
    lines = "\n\n".join(f"  {example}".replace("[", "\\[") for example in examples)
    app.command(name, epilog=f"[bold]Examples[/bold]\n\n{lines}")(function)


_verb("generate", data.generate, data.GENERATE_EXAMPLES)
_verb("score", data.score, data.SCORE_EXAMPLES)
_verb("plan", training.plan, training.PLAN_EXAMPLES)
_verb("run", training.run, training.RUN_EXAMPLES)
_verb("study", training.study, training.STUDY_EXAMPLES)
_verb("evaluate", models.evaluate, models.EVALUATE_EXAMPLES)
_verb("check", check.check, check.EXAMPLES)
_verb("sample", models.sample, models.SAMPLE_EXAMPLES)
_verb("report", training.report, training.REPORT_EXAMPLES)
_verb("export", models.export, models.EXPORT_EXAMPLES)
_verb("doctor", environment.doctor, environment.DOCTOR_EXAMPLES)
_verb("list", environment.listing, environment.LIST_EXAMPLES)


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"gradatim {installed('gradatim')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line ``arguments`` (default: those of this process) and return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    closed = open_streams()
    with careful_streams():
        try:
            check_output_stream(closed)
            _check_arguments(words)
            status: Any = app(words, prog_name="gradatim", standalone_mode=False)
            sys.stdout.flush()
            return status if isinstance(status, int) else 0
        except BaseException as error:
            return _report_error(error, words)


def _check_arguments(words: Sequence[str]) -> None:
    """Raise ``UserError`` for an argument that is not UTF-8: the file could be opened, but results cannot name it."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UserError(
                "a name is not UTF-8", given=word.encode("utf-8", "backslashreplace").decode(), hint="rename it"
            ) from None


def _report_error(error: BaseException, words: Sequence[str]) -> int:
    """Print the error on stderr and return the exit code."""
    from .output import SAVED

    match error:
        case Stopped(hint=hint) if hint == SAVED:
            return _fail(f"{error.message}; resume with: {shlex.join(['gradatim', *words])}", error.exit_code)
        case GradatimError():
            return _fail(str(error), error.exit_code)
        case KeyboardInterrupt() | typer.Abort():
            return _fail("stopped", Stopped.exit_code)
        case ReaderGone():  # a closed pipe ends the command normally
            return 0
        case MemoryError():
            return _fail("out of memory", 1)
        case OSError(filename=str() | os.PathLike() as path, strerror=str() as why):
            return _fail(f"{os.fspath(path)}: {why}", 1)
        case _ if isinstance(error, CommandLineError):
            verbs = [command.name for command in app.registered_commands]
            verb = next((f" {word}" for word in words if word in verbs), "")
            message = " ".join(error.format_message().split()).rstrip(".")  # type: ignore[attr-defined]
            return _fail(f"{message}; try: gradatim{verb} --help", 2)
        case Exception():
            traceback.print_exception(error)
            return _fail("internal error; please report it with the traceback above", 1)
    raise error


def _fail(line: str, status: int) -> int:
    # Parts of the text come from servers and files: control characters must not reach the terminal.
    print(f"gradatim: {''.join(char if char.isprintable() else ' ' for char in line)}", file=sys.stderr, flush=True)
    return status
