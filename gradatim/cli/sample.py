"""``gradatim sample``: completions of a model beside the ground truth."""

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
class Completion:
    """One completion: its prompt, why it ended, and the ground truth where there is one. The fields are JSON keys."""

    prompt: str
    written: str
    finish: str
    truth: str | None
    right: bool | None


def sample(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder, or run folder (its last model).")],
    prompt: Annotated[
        str | None, typer.Option(help="Prompt to complete; - reads it from stdin. (default: new TinyPy programs)")
    ] = None,
    count: Annotated[
        int, typer.Option(min=1, help="Number of programs, or with --prompt and --sampled of completions.")
    ] = 3,
    level: Annotated[list[str] | None, typer.Option(help="Levels of the new programs. (default: all)")] = None,
    sampled: Annotated[
        bool, typer.Option("--sampled", help="Sample at temperature 1 instead of greedy decoding.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number of new tokens.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the programs and of --sampled.")] = 0,
    as_json: Json = False,
) -> None:
    """Generate completions and compare them with the ground truth.

    For a prompt that is a complete TinyPy program, the model predicts its output; any other prompt is continued. Only
    TinyPy programs are run, by an interpreter for that language.
    """
    from .output import output, print_json
    from .progress import watching

    if prompt == "-":
        prompt = _read_prompt()
    with watching() as events:
        from ..api import open_model
        from ..inference.decode import complete
        from ..model.prompt_format import prompt_formatter

        questions = _questions(prompt, count if sampled or prompt is None else 1, words(level or ["all"]), seed)
        opened = open_model(model)
        format_prompt = prompt_formatter(opened.tokenizer)
        new_tokens = limit or max([len(truth) + MARGIN for _, truth in questions if truth is not None] or [200])
        texts = complete(
            opened.model, opened.tokenizer, [format_prompt(text) for text, _ in questions],
            limits=new_tokens, greedy=not sampled, seed=seed, events=events, task="sample",
        )  # fmt: skip
    completions = [
        _compare(text, done.text, done.finish, truth) for (text, truth), done in zip(questions, texts, strict=True)
    ]
    if as_json:
        print_json([asdict(completion) for completion in completions])
        return
    for completion in completions:
        _print(completion, output())


def _read_prompt() -> str:
    """The text on standard input; raises ``UserError`` for binary or too long input."""
    try:
        text = sys.stdin.read(LARGEST_PROMPT + 1)
        text.encode()  # some locales decode invalid UTF-8 to lone surrogates
    except UnicodeError as error:
        raise UserError("the prompt is not UTF-8", where="stdin") from error
    except OSError as error:
        raise UserError("the prompt cannot be read", where="stdin", given=error.strerror) from error
    if len(text) > LARGEST_PROMPT:
        raise UserError("the prompt is too long", where="stdin", allowed=f"{LARGEST_PROMPT:,} characters")
    return text


def _questions(prompt: str | None, count: int, levels: list[str], seed: int) -> list[tuple[str, str | None]]:
    """Prompts and their ground truth, None where there is none."""
    if prompt is None:
        from ..programs import generate

        programs = generate(count, levels=levels, seed=seed).table
        return list(zip(programs["prompt"].to_pylist(), programs["answer"].to_pylist(), strict=True))
    if OUTPUT.strip() not in prompt:
        prompt = prompt if prompt.endswith("\n") or not _printed(prompt) else prompt + "\n"
        prompt += OUTPUT if _printed(prompt) else ""
    elif prompt.endswith(OUTPUT.strip()):
        prompt += "\n"
    return [(prompt, _printed(prompt) if prompt.endswith(OUTPUT) else None)] * count


def _printed(program: str) -> str | None:
    """The output of ``program`` as the lines of an answer; None when it cannot be run."""
    from ..programs import commented, run_program

    try:
        return commented(run_program(program))
    except DataError:
        return None


def _compare(prompt: str, text: str, finish: str, truth: str | None) -> Completion:
    program, separator, output = (prompt + text).partition("\n" + OUTPUT)
    if truth is None and separator and OUTPUT not in prompt:  # the completion has the program's end and its output
        truth = _printed(program)
        return Completion(prompt, text, finish, truth, None if truth is None else output == truth)
    return Completion(prompt, text, finish, truth, None if truth is None else text == truth)


def _print(completion: Completion, console: Console) -> None:
    from rich.text import Text

    console.print(Text.assemble((completion.prompt, "dim"), (completion.written.rstrip("\n"), "bold")))
    if completion.finish not in ("eos", "stop"):
        console.print(f"(ended by: {completion.finish.replace('_', ' ')})", style="yellow")
    if completion.right is None:
        console.print("(no ground truth: the program cannot be run)\n", style="dim")
    elif completion.right:
        console.print("correct\n", style="green")
    else:
        console.print(Text.assemble(("wrong; expected\n", "red"), (completion.truth or "") + "\n"))
