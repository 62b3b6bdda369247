"""Python: parse, compile without executing, lint with pyflakes, run plain programs; properties without tests.

**Verdicts on untrusted Python come from** ``sandbox.PythonChecker``, whose tests run in a process that never executes
the candidate's code. ``check`` of this language runs code and tests in one interpreter, for plain programs and for the
reference side of a comparison; its nonce is the weakest of all languages, because Python code can inspect any stack
frame. The interpreter is the one that runs Gradatim, without its packages.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ToolchainMissing
from ..sandbox.limits import Limits, printable
from .language import (
    MARK,
    Built,
    Examined,
    Extracted,
    Fault,
    Language,
    Program,
    Runner,
    Start,
    compile_limits,
    unusable,
)
from .toolchain import SYSTEM

if TYPE_CHECKING:
    from .language import Language


HARNESS = """
import os, sys
def run(token, path):
    names, texts = {"__name__": "__main__", "__builtins__": __builtins__}, {}
    for name in sys.argv[1:]:  # all, before the program can write others
        with open(name, encoding="utf-8") as file:
            texts[name] = file.read()
    for name, text in texts.items():
        exec(compile(text, name, "exec"), names)
    with open(path, "wb") as file:
        file.write(token)
run(os.read(0, 64), os.path.abspath("MARK"))
""".replace("MARK", MARK)

EXAMINER = """
import json, sys
errors, warnings = [], []
with open("program.py", encoding="utf-8") as file:
    source = file.read()
try:
    compile(source, "program.py", "exec", dont_inherit=True)
except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
    position = getattr(error, "lineno", 0) or 0, getattr(error, "offset", 0) or 0
    errors.append([*position, getattr(error, "msg", None) or str(error) or type(error).__name__, type(error).__name__])
else:
    sys.path.insert(0, sys.argv[1])
    import ast
    from pyflakes import checker
    messages = checker.Checker(ast.parse(source), "program.py").messages
    for item in sorted(messages, key=lambda item: (item.lineno, item.col)):
        warnings.append([item.lineno, item.col + 1, item.message % item.message_args, type(item).__name__])
print(json.dumps([errors, [[line, column, text[:1000], rule] for line, column, text, rule in warnings[:500]]]))
"""


def _grammar() -> Any:
    import tree_sitter_python

    return tree_sitter_python.language()


def _interpreter() -> tuple[Path, dict[Path, str]]:
    """The interpreter behind a virtual environment, and the folders to mount for it."""
    path = Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()
    home = Path(sys.base_prefix).resolve()
    return path, {} if f"{home}/".startswith(SYSTEM) else {home: str(home)}


def version() -> str:
    """The interpreter's version."""
    return sys.version.split()[0]


def assemble(prompt: str, completion: str, tests: str, *, setup: str = "") -> Program:
    """The prompt with its completion, and the tests."""
    return Program(f"{setup}{prompt}{completion}", tests)


def build(sandbox: Runner, program: Program) -> Built:
    """A no-op: Python compiles as it runs, and reports a syntax error then."""
    return Built()


def start(built: Built, program: Program) -> Start:
    """Run code and tests in one interpreter, without packages of the site."""
    path, folders = _interpreter()
    files = {"harness.py": HARNESS.encode(), "program.py": program.code.encode()}
    if program.tests:
        files["tests.py"] = program.tests.encode()
    return Start((str(path), "-I", "-S", "-B", *files), files, folders)


def examine(sandbox: Runner, code: str) -> Examined:
    """Errors of ``compile`` and warnings of pyflakes. Both read the code inside the sandbox."""
    linter = importlib.util.find_spec("pyflakes")
    if linter is None or not linter.submodule_search_locations:
        raise ToolchainMissing(
            "Python's linter is not installed", given="pyflakes", hint="pip install 'gradatim[languages]'"
        )
    path, folders = _interpreter()
    done = sandbox.run(
        [str(path), "-I", "-S", "-B", "-c", EXAMINER, "/lint"],
        files={"program.py": code.encode()},
        limits=compile_limits(),
        mounts={**folders, Path(linter.submodule_search_locations[0]): "/lint/pyflakes"},
    )
    if not done.ok:
        return Examined((Fault(0, 0, f"Python could not read it: {done.ending} {done.code}"),))
    errors, warnings = json.loads(done.stdout)
    return Examined(tuple(Fault(*entry) for entry in errors), tuple(Fault(*entry) for entry in warnings))


PYTHON = Language(
    name="python",
    title="Python",
    aliases=("py", "python3", "py3", "python2", "ipython"),
    suffix=".py",
    grammar=_grammar,
    openers=r"^(?:from\s+[\w.]+\s+import\s|import\s+[\w.]+\s*(?:,|as\b|#|$)|(?:async\s+)?def\s+\w+\s*[(\[]"
    r"|class\s+\w+\s*[:(]|@\w|if __name__)",
    definition=r"^(?:async\s+)?(?:def|class)\s+(?P<name>\w+)",
    missing=lambda: None,
    version=version,
    assemble=assemble,
    build=build,
    start=start,
    examine=examine,
    runnable=lambda code: True,
    refused=("print_statement", "exec_statement"),
)


@dataclass(frozen=True)
class StaticView:
    """The results. ``errors``: the parser's or else the compiler's; ``warnings``: the linter's; with their positions.

    ``ending`` describes the end of the run when ``runs`` is False.

    Five steps, each taken only when the one before it succeeded: there is complete code, it parses, it compiles, it
    runs without an error; and the warnings of compiler or linter. The results are values for a judge to weigh; no
    score is computed here.

    ``compiles`` and ``runs`` are None where the step was not taken: because an earlier one failed, or, for
    ``runs``, because the code has no entry of its own (a C function without ``main``). A successful run proves
    little: code that only defines a function runs well.
    """

    extracted: Extracted
    complete: bool
    parses: bool
    compiles: bool | None = None
    runs: bool | None = None
    errors: tuple[Fault, ...] = ()
    warnings: tuple[Fault, ...] = ()
    ending: str = ""


def static_view(language: Language, reply: str, sandbox: Runner, *, limits: Limits | None = None) -> StaticView:
    """The static properties of a whole reply, prose and fences included.

    Raises ``ToolchainMissing`` where compiler, runtime or linter is not installed: a result without the check would be
    false.
    """
    extracted = language.extract(reply)
    complete = extracted.state in ("fenced", "bare")
    if extracted.state == "none":
        return StaticView(extracted, False, False)
    code = extracted.code
    reason = unusable(code)
    fault = Fault(0, 0, reason) if reason else language.parses(code)
    if fault is not None:
        return StaticView(extracted, complete, False, errors=(fault,))
    examined = language.examine(sandbox, code)
    if examined.errors:
        return StaticView(extracted, complete, True, False, None, examined.errors, examined.warnings)
    if not language.runnable(code):
        return StaticView(extracted, complete, True, True, None, (), examined.warnings)
    ending = _run(language, sandbox, code, limits or Limits())
    return StaticView(extracted, complete, True, True, not ending, (), examined.warnings, ending)


def _run(language: Language, sandbox: Runner, code: str, limits: Limits) -> str:
    """A description of a failed run; empty for a successful one."""
    program = Program(code)
    built = language.build(sandbox, program)
    if built.faults or built.stopped:
        return printable(f"does not link: {built.stopped or built.faults[0]}")
    start = language.start(built, program)
    done = sandbox.run(
        start.command,
        files=start.files,
        limits=language.fit(limits),
        mounts=start.mounts,
        environment=start.environment,
    )
    if done.ok:
        return ""
    last = done.stderr.strip().split(b"\n")[-1]
    return printable(f"{done.ending} {done.code}: ".encode() + last)
