"""The command ``gradatim``: its commands, error messages and exit codes.

An error is one line on stderr, ``gradatim: where: what; given; allowed; try``. Exit codes: 2 for invalid input, 1 for
failed work, 130 for an interrupt. Only an unexpected exception, a bug in Gradatim, shows a traceback.
"""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version as installed_version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..errors import GradatimError, ProcessLost, Stopped, UserError
from ..processes import LAUNCHED, LOST, is_other_rank
from .output import SAVED, ReaderGone, careful_streams, check_output_stream, open_streams

# Typer bundles click and exports its error class only as a base of this subclass.
CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]

COMMANDS = {
    "generate": ("gradatim.cli.data:generate", "Generate random TinyPy programs with their output."),
    "score": ("gradatim.cli.data:score", "Score the difficulty of samples: one column per metric, higher is harder."),
    "plan": ("gradatim.cli.training:plan", "Show the stages, data and cost of a recipe without training."),
    "run": ("gradatim.cli.training:run", "Train and evaluate a model by a recipe, stage by stage."),
    "study": ("gradatim.cli.training:study", "Run the arms of a study with several seeds each and compare them."),
    "resume": (
        "gradatim.cli.resume:resume",
        "Continue the run or study in a folder by the recipe that the folder stores.",
    ),
    "evaluate": (
        "gradatim.cli.models:evaluate",
        "Evaluate a model on a dataset; report accuracy with 95 % Wilson intervals.",
    ),
    "check": (
        "gradatim.cli.check:check",
        "Run generated programs against the tests of their problems and estimate pass@k.",
    ),
    "sample": ("gradatim.cli.models:sample", "Generate completions and compare them with the ground truth."),
    "report": ("gradatim.cli.training:report", "Compare runs on one self-contained HTML page."),
    "compare": (
        "gradatim.cli.training:compare",
        "Compare models on the same test items by McNemar's exact test.",
    ),
    "show": ("gradatim.cli.show:show", "Show runs in the browser: stages, what was learnt, and a playground."),
    "track": (
        "gradatim.cli.track:track",
        "Send the metrics and results of runs to a tracker, each entry once.",
    ),
    "export": (
        "gradatim.cli.models:export",
        "Export a model for other programs, and compare the export with the original before it is kept.",
    ),
    "doctor": (
        "gradatim.cli.environment:doctor",
        "Check this machine: packages, sandbox, toolchains, hardware, and how to install what is missing.",
    ),
    "list": ("gradatim.cli.environment:listing", "List the components that recipes can name, and the recipes."),
}
"""Each command's function and its summary in ``gradatim --help``, which is the first sentence of its docstring."""


class LazyCommands(TyperGroup):
    """A group of commands whose modules are imported when a command is resolved: to run, for its help, to complete."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, summary, rest = super().resolve_command(ctx, args)
        return name, None if summary is None else load_command(str(name)), rest


def load_command(name: str) -> Any:
    """Import the command ``name`` of ``COMMANDS``; its options are the parameters of its function."""
    module, _, function = COMMANDS[name][0].partition(":")
    command = import_module(module)
    examples = getattr(command, f"{name.upper()}_EXAMPLES")
    lines = "\n\n".join(f"  {example}".replace("[", "\\[") for example in examples)
    single = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
    single.command(name, epilog=f"[bold]Examples[/bold]\n\n{lines}")(getattr(command, function))
    return typer.main.get_command(single)


app = typer.Typer(
    name="gradatim",
    cls=LazyCommands,
    help="Train small code language models by curriculum learning and iterative distillation.",
    epilog="First run: [bold]gradatim run demo/baseline[/bold] (about two minutes; predicts a fifth of the outputs in "
    "full). Examples: gradatim COMMAND --help.",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _summary() -> None:
    """Stand for a command in the list of commands."""


for _name, (_, _help) in COMMANDS.items():
    app.command(_name, help=_help)(_summary)


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"gradatim {installed_version('gradatim')}")
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
    match error:
        case Stopped(hint=hint) if hint == SAVED:
            command = shlex.join(["gradatim", *(word for word in words if word != "--fresh")])
            return _fail(f"{error.message}; resume with: {command}", error.exit_code)
        case ProcessLost(reported=True) as lost:
            return lost.exit_code
        case ProcessLost() if LAUNCHED in os.environ:  # the supervisor reports which process it was
            return LOST
        case UserError() if is_other_rank():  # rank 0 meets it too, and reports it
            return error.exit_code
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
            verb = next((f" {word}" for word in words if word in COMMANDS), "")
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
