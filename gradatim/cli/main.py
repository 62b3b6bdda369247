"""What does the command ``gradatim`` do with its arguments, and with errors?

Binds the verbs and runs one. An error is one line on stderr, ``gradatim: where: what; given; allowed; try``, and an
exit code: 2 the user's mistake, 1 the work failed, 130 stopped by the user. Only an error that nobody foresaw, a
fault of Gradatim's, shows a traceback.
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
from . import check, doctor, evaluate, export, generate, plan, report, run, sample, score, study
from . import list as listing
from .streams import ReaderGone, careful_streams, check_output_stream, open_streams

__all__ = ["app", "main"]

# Typer brings its own click, whose errors it exports only through this subclass.
CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="gradatim",
    help="Train small code language models step by step: what they learn next is decided by how hard it is.",
    epilog="New here? [bold]gradatim run smoke/baseline[/bold] takes seconds; gradatim VERB --help has examples.",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _verb(name: str, function: Callable[..., None], examples: Sequence[str]) -> None:
    lines = "\n\n".join(f"  {example}".replace("[", "\\[") for example in examples)
    app.command(name, epilog=f"[bold]Examples[/bold]\n\n{lines}")(function)


_verb("generate", generate.generate, generate.EXAMPLES)
_verb("score", score.score, score.EXAMPLES)
_verb("plan", plan.plan, plan.EXAMPLES)
_verb("run", run.run, run.EXAMPLES)
_verb("study", study.study, study.EXAMPLES)
_verb("evaluate", evaluate.evaluate, evaluate.EXAMPLES)
_verb("check", check.check, check.EXAMPLES)
_verb("sample", sample.sample, sample.EXAMPLES)
_verb("report", report.report, report.EXAMPLES)
_verb("export", export.export, export.EXAMPLES)
_verb("doctor", doctor.doctor, doctor.EXAMPLES)
_verb("list", listing.listing, listing.EXAMPLES)


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
    """Run the command line ``arguments`` (those of this process when left out) and return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    closed = open_streams()
    with careful_streams():
        try:
            check_output_stream(closed)
            _check_arguments(given)
            status: Any = app(given, prog_name="gradatim", standalone_mode=False)
            sys.stdout.flush()
            return status if isinstance(status, int) else 0
        except BaseException as error:
            return _told(error, given)


def _check_arguments(given: Sequence[str]) -> None:
    """Refuse what is no UTF-8: such a name can be opened, but not be written into results."""
    for word in given:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UserError(
                "a name is not UTF-8", given=word.encode("utf-8", "backslashreplace").decode(), hint="rename it"
            ) from None


def _told(error: BaseException, given: Sequence[str]) -> int:
    """Say what went wrong and return the exit code."""
    from .progress import SAVED

    match error:
        case Stopped(hint=hint) if hint == SAVED:
            return _say(f"{error.message}; go on with: {shlex.join(['gradatim', *given])}", error.exit_code)
        case GradatimError():
            return _say(str(error), error.exit_code)
        case KeyboardInterrupt() | typer.Abort():
            return _say("stopped", Stopped.exit_code)
        case ReaderGone():  # the reader has enough
            return 0
        case MemoryError():
            return _say("there is not enough memory", 1)
        case OSError(filename=str() | os.PathLike() as path, strerror=str() as why):
            return _say(f"{os.fspath(path)}: {why}", 1)
        case _ if isinstance(error, CommandLineError):
            verbs = [command.name for command in app.registered_commands]
            verb = next((f" {word}" for word in given if word in verbs), "")
            message = " ".join(error.format_message().split()).rstrip(".")  # type: ignore[attr-defined]
            return _say(f"{message}; try: gradatim{verb} --help", 2)
        case Exception():
            traceback.print_exception(error)
            return _say("this is a fault of gradatim; please report it with the lines above", 1)
    raise error


def _say(line: str, status: int) -> int:
    # Some words are a server's or a file's: what would steer the terminal is not shown.
    print(f"gradatim: {''.join(each if each.isprintable() else ' ' for each in line)}", file=sys.stderr, flush=True)
    return status
