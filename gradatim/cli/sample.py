"""``gradatim sample``: what does a student write, beside what is true?"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import DataError, UserError
from .options import Json, words

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["EXAMPLES", "sample"]

EXAMPLES = (
    "gradatim sample runs/smoke-baseline --count 5",
    "gradatim sample MODEL --prompt 'a = 3; print(a * a)'",
    "cat program.py | gradatim sample MODEL --prompt -",
)
OUTPUT = "# output\n"
MARGIN = 16
LARGEST_PROMPT = 1 << 20


@dataclass(frozen=True)
class Written:
    """One text of the student's: after which prompt, why it ended, and what should be there, where that is known."""

    prompt: str
    written: str
    finish: str
    truth: str | None
    right: bool | None


def sample(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder, or a run folder: its last model.")],
    prompt: Annotated[
        str | None, typer.Option(help="What to go on from; - reads it from stdin. (default: new TinyPy programs)")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many programs, or how many texts with --sampled.")] = 3,
    level: Annotated[list[str] | None, typer.Option(help="Levels of the new programs. (default: all)")] = None,
    sampled: Annotated[
        bool, typer.Option("--sampled", help="Draw at temperature 1 instead of taking the likeliest.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="The most tokens to write.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws the programs, and the texts with --sampled.")] = 0,
    as_json: Json = False,
) -> None:
    """Show what a student writes, beside what is true when it can be run.

    A prompt that is a whole TinyPy program is run, and the student is asked what it prints; any other prompt is
    continued. Nothing is run but TinyPy, in an interpreter of its own.
    """
    from .output import output, print_json
    from .progress import watching

    if prompt == "-":
        prompt = _read_prompt()
    with watching() as events:
        from ..api import open_model
        from ..inference.decode import complete
        from ..model.prompt_format import prompt_formatter

        asked = _questions(prompt, count if sampled or prompt is None else 1, words(level or ["all"]), seed)
        student = open_model(model)
        shape = prompt_formatter(student.tokenizer)
        room = limit or max([len(truth or "") + MARGIN for _, truth in asked if truth is not None] or [200])
        texts = complete(
            student.model, student.tokenizer, [shape(text) for text, _ in asked],
            limits=room, greedy=not sampled, seed=seed, events=events, task="sample",
        )  # fmt: skip
    found = [_judged(text, done.text, done.finish, truth) for (text, truth), done in zip(asked, texts, strict=True)]
    if as_json:
        print_json([asdict(each) for each in found])
        return
    for each in found:
        _print(each, output())


def _read_prompt() -> str:
    """The text on standard input; ``UserError`` when it is no text, or has no end in sight."""
    try:
        text = sys.stdin.read(LARGEST_PROMPT + 1)
        text.encode()  # in some locales what is no UTF-8 becomes halves of surrogates
    except UnicodeError as error:
        raise UserError("the prompt is not UTF-8", where="stdin") from error
    except OSError as error:
        raise UserError("the prompt cannot be read", where="stdin", given=error.strerror) from error
    if len(text) > LARGEST_PROMPT:
        raise UserError("the prompt is too long", where="stdin", allowed=f"{LARGEST_PROMPT:,} characters")
    return text


def _questions(prompt: str | None, count: int, levels: list[str], seed: int) -> list[tuple[str, str | None]]:
    """Prompts and their true answers, None where only the student knows what comes next."""
    if prompt is None:
        from ..programs import generate

        made = generate(count, levels=levels, seed=seed).table
        return list(zip(made["prompt"].to_pylist(), made["answer"].to_pylist(), strict=True))
    if OUTPUT.strip() not in prompt:
        prompt = prompt if prompt.endswith("\n") or not _printed(prompt) else prompt + "\n"
        prompt += OUTPUT if _printed(prompt) else ""
    elif prompt.endswith(OUTPUT.strip()):
        prompt += "\n"
    return [(prompt, _printed(prompt) if prompt.endswith(OUTPUT) else None)] * count


def _printed(program: str) -> str | None:
    """What ``program`` prints, as the lines of an answer; None when it cannot be run."""
    from ..programs import commented, run_program

    try:
        return commented(run_program(program))
    except DataError:
        return None


def _judged(prompt: str, written: str, finish: str, truth: str | None) -> Written:
    program, mark, said = (prompt + written).partition("\n" + OUTPUT)
    if truth is None and mark and OUTPUT not in prompt:  # the student finished the program, and said what it prints
        truth = _printed(program)
        return Written(prompt, written, finish, truth, None if truth is None else said == truth)
    return Written(prompt, written, finish, truth, None if truth is None else written == truth)


def _print(each: Written, console: Console) -> None:
    from rich.text import Text

    console.print(Text.assemble((each.prompt, "dim"), (each.written.rstrip("\n"), "bold")))
    if each.finish not in ("eos", "stop"):
        console.print(f"(ended by: {each.finish.replace('_', ' ')})", style="yellow")
    if each.right is None:
        console.print("(this cannot be run, so nobody knows what is true)\n", style="dim")
    elif each.right:
        console.print("right\n", style="green")
    else:
        console.print(Text.assemble(("wrong; true is\n", "red"), (each.truth or "") + "\n"))
