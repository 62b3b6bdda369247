"""``gradatim sample``: completions of a model beside the ground truth.

``gradatim evaluate``: accuracy of a model on a dataset, with intervals.

``gradatim export``: a trained model in the format of another program, compared with the original.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from .. import evaluation, executors, programs
from ..api import evaluate as run_suite
from ..api import is_policy, model_folder, open_model, read_samples_of
from ..errors import DataError, UserError
from ..export import hub, write
from ..files import check_output, check_output_folder
from ..inference import decode
from ..model import load, prompt_format, vocabulary
from ..model.settings import Dtype
from ..options import option_names, override
from ..programs.grammar import characters, levels_named
from ..results import is_texts, is_verdicts, write_texts, write_verdicts
from ..table.rows import OUTPUT_LINE
from .output import (
    Columns,
    Force,
    Json,
    On,
    check_replaceable,
    mapping_of,
    output,
    print_json,
    table,
    watching,
    words,
)

if TYPE_CHECKING:
    from rich.console import Console

    from ..export.exporter import Export
    from ..stage import SuiteResult


SAMPLE_EXAMPLES = (
    "gradatim sample runs/demo-baseline --count 5",
    "gradatim sample MODEL --prompt 'print(3 * 4)'",
    "cat program.py | gradatim sample MODEL --prompt -",
    "gradatim sample HuggingFaceTB/SmolLM2-135M-Instruct --system 'Be brief.' --prompt 'How do I list files?'",
)
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


MODEL_HELP = "Model folder, run folder (its last model), adapter, .gguf file or name on the hub"


def sample(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=f"{MODEL_HELP}.")],
    prompt: Annotated[
        str | None, typer.Option(help="Prompt to complete; - reads it from stdin. (default: new TinyPy programs)")
    ] = None,
    system: Annotated[
        str | None,
        typer.Option(help="System message before the prompt, of a chat model. (default: that of its training)"),
    ] = None,
    count: Annotated[
        int, typer.Option(min=1, help="Number of programs, or with --prompt and --sampled of completions.")
    ] = 3,
    level: Annotated[
        list[str] | None,
        typer.Option(help="Levels of the new programs. (default: all whose characters the tokenizer has)"),
    ] = None,
    sampled: Annotated[
        bool, typer.Option("--sampled", help="Sample at temperature 1 instead of greedy decoding.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number of new tokens.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the programs and of --sampled.")] = 0,
    as_json: Json = False,
) -> None:
    """Generate completions and compare them with the ground truth.

    For a prompt that is a complete TinyPy program, the model predicts its output. A chat model answers any other prompt
    in its chat template, as it was trained; another model continues it. Only TinyPy programs are run, by an interpreter
    for that language.
    """
    if prompt == "-":
        prompt = _read_prompt()
    with watching() as events:
        opened = open_model(model)
        levels = words(level or _levels(opened.tokenizer))
        questions = _questions(prompt, count if sampled or prompt is None else 1, levels, seed)
        _check_characters(opened.tokenizer, "".join(text for text, _ in questions), prompt)
        form = _prompt_format(opened.tokenizer, prompt, system)
        format_prompt = _formatter(opened.tokenizer, form, system)
        lengths = [len(programs.longest_answer(text, truth)) for text, truth in questions if truth is not None]
        new_tokens = limit or (max(lengths) + MARGIN if lengths else 200)
        texts = decode.complete(
            opened.model, opened.tokenizer, [format_prompt(text) for text, _ in questions],
            limits=new_tokens, greedy=not sampled, seed=seed, events=events, task="sample",
        )  # fmt: skip
    completions = [
        _compare(text, done.text, done.finish, truth, form)
        for (text, truth), done in zip(questions, texts, strict=True)
    ]
    if as_json:
        print_json([asdict(completion) for completion in completions])
        return
    for completion in completions:
        _print(completion, form, output())


def _prompt_format(tokenizer: Any, prompt: str | None, system: str | None) -> prompt_format.PromptFormat:
    """The prompt format of the model's training, with the system message ``system`` if it is not None.

    A model that was not trained by Gradatim has its chat template, if any; TinyPy programs (no ``prompt``) stay plain
    for it unless there is a system message. Raises ``UserError`` for a system message and plain prompts.
    """
    form = prompt_format.prompt_format_of(tokenizer)
    has_template = bool(getattr(tokenizer, "chat_template", None))
    if not prompt_format.has_prompt_format(tokenizer) and has_template and (prompt is not None or system is not None):
        form = prompt_format.PromptFormat("chat")
    if system is None:
        return form
    if form.template == "plain":
        cause = "was trained on plain prompts" if has_template else "has no chat template"
        raise UserError(f"this model {cause}, which have no system message", where="--system", hint="leave it out")
    return replace(form, system=system)


def _formatter(tokenizer: Any, form: prompt_format.PromptFormat, system: str | None) -> Callable[[str], str]:
    """A function that puts prompts into ``form``.

    A model that was not trained by Gradatim may think first. ``system``: the system message of the command line, which
    the ``UserError`` for a template that rejects it names.
    """
    if form.template == "plain":
        return prompt_format.plain_formatter(tokenizer)
    thinking = not prompt_format.has_prompt_format(tokenizer)
    format_prompt = prompt_format.chat_formatter(tokenizer, form.system, thinking=thinking)

    def format_with_system(prompt: str) -> str:
        try:
            return format_prompt(prompt)
        except DataError as error:
            message = "the chat template of this model rejects a system message, or this prompt"
            raise UserError(message, where="--system", given=error.given, hint="leave it out") from error

    return format_prompt if system is None else format_with_system


def _levels(tokenizer: Any) -> list[str]:
    """The published levels of TinyPy whose characters the tokenizer has; all if it has those of none."""
    known = vocabulary.Vocabulary(tokenizer)
    levels = [level.name for level in levels_named("all")]
    return [name for name in levels if not known.unknown_characters("".join(characters([name])))] or ["all"]


def _check_characters(tokenizer: Any, text: str, prompt: str | None) -> None:
    """Raise ``UserError`` for prompts with a character that the tokenizer does not know: nothing could be generated."""
    unknown = vocabulary.Vocabulary(tokenizer).unknown_characters(text)
    if unknown:
        raise UserError(
            "the tokenizer of this model lacks a character of the prompt",
            where="--level" if prompt is None else "--prompt",
            given=", ".join(map(repr, unknown[:10])),
            hint="levels that the model was trained on" if prompt is None else "a prompt like the training samples",
        )


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
        samples = programs.generate(count, levels=levels, seed=seed).table
        return list(zip(samples["prompt"].to_pylist(), samples["answer"].to_pylist(), strict=True))
    if OUTPUT_LINE.strip() not in prompt:
        prompt = prompt if prompt.endswith("\n") or not _printed(prompt) else prompt + "\n"
        prompt += OUTPUT_LINE if _printed(prompt) else ""
    elif prompt.endswith(OUTPUT_LINE.strip()):
        prompt += "\n"
    return [(prompt, _printed(prompt) if prompt.endswith(OUTPUT_LINE) else None)] * count


def _printed(program: str) -> str | None:
    """The output of ``program`` as the lines of an answer; None when it cannot be run."""
    try:
        return programs.commented(programs.run_program(program))
    except DataError:
        return None


def _compare(prompt: str, text: str, finish: str, truth: str | None, form: prompt_format.PromptFormat) -> Completion:
    """A completion with its verdict; steps of a scratchpad are not compared."""
    program, separator, output = (prompt + text).partition("\n" + OUTPUT_LINE)
    answer = text
    if truth is None and form.template == "plain" and separator and OUTPUT_LINE not in prompt:
        truth, answer = _printed(program), output  # the completion has the program's end and its output
    right = None if truth is None else programs.printed_lines(answer) == truth
    return Completion(prompt, text, finish, truth, right)


def _print(completion: Completion, form: prompt_format.PromptFormat, console: Console) -> None:
    """Print a completion: of a chat each message under its role, else the continued prompt; then what is wrong."""
    if form.template == "chat":
        for role, text in prompt_format.turns_of(completion.prompt, form.system):
            console.print(Text.assemble((f"{role}:\n", "bold dim"), (text.rstrip("\n") + "\n", "dim")))
        console.print(Text.assemble(("assistant:\n", "bold dim"), (completion.written.rstrip("\n"), "bold")))
    else:
        prompt = prompt_format.plain_prompt(completion.prompt, form.separator)
        console.print(Text.assemble((prompt, "dim"), (completion.written.rstrip("\n"), "bold")))
    if completion.finish == "too_long":
        console.print("(no text was generated: the prompt is longer than the model's context)", style="yellow")
    elif completion.finish not in ("eos", "stop"):
        console.print(f"(ended by: {completion.finish.replace('_', ' ')})", style="yellow")
    if completion.right is None:
        asks = OUTPUT_LINE in completion.prompt or (form.template == "plain" and OUTPUT_LINE in completion.written)
        console.print("(no ground truth: the program cannot be run)\n" if asks else "", style="dim")
    elif completion.right:
        console.print("correct\n", style="green")
    else:
        console.print(Text.assemble(("wrong; expected\n", "red"), (completion.truth or "") + "\n"))


EVALUATE_EXAMPLES = (
    "gradatim evaluate runs/demo-baseline --data programs.parquet",
    "gradatim evaluate MODEL --suite output --protocol paper --data programs.parquet --limit 1000 --json",
    "gradatim evaluate MODEL --suite functional --problems humaneval --verdicts a.parquet",
    "gradatim evaluate MODEL --data test.parquet --limit 100 --texts texts.jsonl",
    "gradatim evaluate http://localhost:8000/v1#NAME --suite functional --problems humaneval --set chat=true",
)


def evaluate(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help=f"{MODEL_HELP}; or http://HOST/v1#NAME."),
    ],
    data: Annotated[Path | None, typer.Option(help="Dataset: .parquet, .jsonl, .csv or .txt.")] = None,
    columns: Columns = None,
    suite: Annotated[str, typer.Option(help="Evaluation suite (gradatim list suites).")] = "output",
    protocol: Annotated[
        str | None, typer.Option(help="greedy; paper or sampled, by suite; scratchpad in output. (default: greedy)")
    ] = None,
    problems: Annotated[str | None, typer.Option(help="functional, cruxeval: problem file or benchmark name.")] = None,
    keep: Annotated[
        Path | None,
        typer.Option(help="functional, cruxeval: folder for completions and verdicts, from which the command resumes."),
    ] = None,
    verdicts: Annotated[
        Path | None, typer.Option(help="Parquet file for the verdict on every sample, which compare reads.")
    ] = None,
    texts: Annotated[
        Path | None,
        typer.Option(
            help="File (JSON lines) for what the model wrote for each item, beside what was expected. Texts of the "
            "suite output are then written to their end, which takes longer."
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Option of the suite; repeatable."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Number of samples to evaluate, drawn by the seed.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    dtype: Annotated[
        Dtype | None,
        typer.Option(
            help="Type of the weights; bf16 is faster on a CPU with bf16 products. (default: fp32 on a CPU, that of "
            "the files elsewhere)"
        ),
    ] = None,
    on: On = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Evaluate a model on a dataset; report accuracy with 95 % Wilson intervals.

    The intervals cover the sampling of test items for this one model, not the variation between training seeds.
    """
    options: dict[str, Any] = {"protocol": protocol, "limit": limit, "problems": problems}
    options |= {"keep": None if keep is None else str(keep), **_options(changes or [])}
    if data is None and problems is None and suite != "cruxeval":
        raise UserError("a dataset is needed", where="--data", allowed="a file", hint="--data FILE")
    if keep is not None:
        check_output_folder(keep, "--keep")
    if verdicts is not None:
        check_output(verdicts, "--verdicts", ours=is_verdicts, inputs=[data, problems])
        check_replaceable(verdicts, "--verdicts", force)
    if texts is not None:
        check_output(texts, "--texts", ours=is_texts, inputs=[data, problems, verdicts])
        check_replaceable(texts, "--texts", force)
        if WHOLE_TEXTS in option_names(evaluation.SUITES.get(suite, where="--suite")):
            options.setdefault(WHOLE_TEXTS, True)
    with watching(resumable=keep is not None) as events, executors.use(on):
        options = {name: value for name, value in options.items() if value is not None}
        result = run_suite(
            model, data, suite, seed=seed, columns=mapping_of(columns), dtype=dtype, events=events, **options
        )
    if verdicts is not None:
        if result.verdicts is None:
            raise UserError("this suite gives no verdict per sample", where="--verdicts", given=suite)
        write_verdicts(result.verdicts, verdicts)
    if texts is not None:
        if result.texts is None:
            raise UserError("this suite has no texts", where="--texts", given=suite)
        write_texts(result.texts(), texts)
    if as_json:
        print_json(evaluation.summary(result))
        return
    for block in _tables(result):
        output().print(block)


WHOLE_TEXTS = "whole_texts"
"""Option of suites that end a text once it is certain to be wrong."""

ARGUMENTS = {
    "model": "MODEL",
    "data": "--data FILE",
    "suite": "--suite NAME",
    "seed": "--seed NUMBER",
    "columns": "--columns OURS=THEIRS",
    "dtype": "--dtype bf16",
    "events": None,
}
"""Parameters of ``api.evaluate`` that are no options of a suite, and the command's own way to set them."""


def _options(changes: Sequence[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for change in changes:
        (outer, *inner), value = override(change, hint="--set num_samples=10")
        if outer in ARGUMENTS:
            raise UserError("no suite has this option", where="--set", given=change, hint=ARGUMENTS[outer])
        if not inner:
            options[outer] = value
        elif isinstance(options.setdefault(outer, {}), dict):
            options[outer][".".join(inner)] = value
        else:
            raise UserError("this option has no nested options", where="--set", given=change)
    return options


def _tables(result: SuiteResult) -> list[Any]:
    plain = evaluation.summary(result)
    scores = [
        (name, f"{score['value']:.1%}", f"{score['low']:.1%} to {score['high']:.1%}")
        for name, score in plain["scores"].items()
    ]
    counts = ", ".join(f"{number:,} {name}" for name, number in plain["counts"].items() if number)
    blocks: list[Any] = [table((f"{result.suite} ({result.protocol})", "value", "95 % interval"), scores), counts]
    for group, members in result.counts.items():
        if group in ("all", "outcome") or set(members) == {"none"}:
            continue
        rows = []
        for value, count in members.items():
            low, high = evaluation.wilson(count.passed, count.total)
            share = f"{count.passed / count.total:.1%}" if count.total else None
            rows.append((value, count.passed, count.total, share, f"{low:.1%} to {high:.1%}"))
        blocks.append(table((group, "correct", "total", "accuracy", "95 % interval"), rows))
    return blocks


EXPORT_EXAMPLES = (
    "gradatim export runs/curriculum-fast --to gguf --bits 8 --data test.parquet --out student",
    "gradatim export runs/curriculum-fast --to page --out page",
    "gradatim export runs/distill-coder --merge --out my-coder",
    "gradatim export runs/distill-coder/cycle-00/stage-00-all/model --out adapter",
    "gradatim export runs/curriculum-fast --data test.parquet --lm-eval --push OWNER/NAME --out student",
)


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder, or run folder (its last model).")],
    out: Annotated[Path, typer.Option(help="Output folder, new or empty.")],
    to: Annotated[str, typer.Option(help="Format (gradatim list exporters).")] = "hf",
    bits: Annotated[
        int | None,
        typer.Option(help="Bits per weight: 32, 16, 8, 5 or 4, where the format has them. (default: 32; page: 8)"),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Test set, on which the accuracy of both models is counted.")
    ] = None,
    columns: Columns = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Number of samples of --data, drawn by seed 0.")] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="hf: merge the LoRA adapter into the base model; other formats always do.")
    ] = False,
    task: Annotated[
        bool, typer.Option("--lm-eval", help="Also write --data as a task of lm-evaluation-harness, OUT/lm_eval.")
    ] = False,
    dtype: Annotated[
        str | None, typer.Option(help="Type of merged weights: fp32, bf16 or fp16. (default: that of the base)")
    ] = None,
    push: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Upload the folder to the Hugging Face hub, private.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Export a model for other programs, and compare the export with the original before it is kept.

    The exported tokens must be equal, the log-probabilities equal within the precision of the format. With --data the
    suite output runs on both models. Without --merge, hf exports a LoRA adapter as an adapter, which needs its base.
    """
    if dtype is not None and not (merge and dtype in load.EXPORT_DTYPES):
        allowed = ", ".join(load.EXPORT_DTYPES) if merge else "with --merge alone"
        raise UserError("these weights cannot have this type", where="--dtype", given=dtype, allowed=allowed)
    with watching(every_task=True) as events:
        source = model_folder(model)
        if is_policy(source):
            raise UserError("a policy of a mobile network has no format of another program", where=source)
        if push is not None:
            hub.check_name(push)
        samples = None if data is None else read_samples_of(data, mapping_of(columns), limit, events)
        options: dict[str, Any] = {"bits": bits, "merge": merge, "dtype": dtype}
        exported = write.export_model(source, out, to, **options, data=samples, task=task, events=events)
    if as_json:
        print_json(asdict(exported))
    else:
        for line in _export_lines(exported):
            output().print(line, markup=False, highlight=False)
    if push is not None:
        with watching():
            address = hub.push(out, push)
        print(address, file=sys.stderr)


def _export_lines(exported: Export) -> list[str]:
    """The export in words: its folder, its proof, and notes."""
    merged = f": {exported.parameters:,} parameters, adapter merged into {exported.merged}" if exported.merged else ""
    facts = [f"{exported.bytes / 1e6:.2f} MB", f"{exported.milliseconds_per_token:.1f} CPU ms a token"]
    if exported.total:
        before, after = (f"{(count or 0) / exported.total:.1%}" for count in (exported.before, exported.after))
        facts = [f"{before} → {after}, {exported.lost:,} lost, {exported.won:,} won", *facts]
    difference = f"log-probabilities within {exported.largest_difference:.2g} nats"
    facts.append(f"{exported.texts:,} texts with equal tokens, {difference}")
    return [f"{exported.folder}{merged}", ", ".join(facts), *(f"note: {note}" for note in exported.notes)]
