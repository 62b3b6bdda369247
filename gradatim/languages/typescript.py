"""TypeScript: npm's compiler removes the types, once per content; node runs the result as JavaScript.

Types are not checked before running, since they do not change a program's behaviour; ``examine`` reports them. So
compilation means transpiling (``--noCheck`` with no library), 11 ms instead of 500 with the native compiler. Older
compilers, written in JavaScript themselves, work the same and slower.

The compiler is the folder of the npm package: ``$GRADATIM_TYPESCRIPT``, else the one that ``tsc`` on ``PATH`` belongs
to. It needs version 5.6 or later.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..sandbox.limits import Execution
from .javascript import DEFINITION, assemble, fit, node, node_version, start_scripts
from .language import Built, Examined, Fault, Language, Program, Runner, Start, compile_limits
from .toolchain import compile_once, find, mounts, need, tool_version

ADVICE = "npm install -g typescript"
PACKAGE = "GRADATIM_TYPESCRIPT"
INSIDE = "/typescript"
OPTIONS = ("--target", "es2022", "--module", "commonjs", "--pretty", "false")

NEEDED = "Array<T> Boolean CallableFunction Function IArguments NewableFunction Number Object RegExp String"
NO_LIBRARY = "".join(f"interface {name} {{}}\n" for name in NEEDED.split()).encode()
"""Declarations that the compiler requires without a library."""

NODE_NAMES = b'declare var require: any, module: any, exports: any, process: any, Buffer: any;\ndeclare module "*";\n'

_DIAGNOSTIC = re.compile(
    r"^[\w.]+\((?P<line>\d{1,9}),(?P<column>\d{1,9})\): error (?P<rule>TS\d{1,9}): (?P<message>.*)$", re.MULTILINE
)


def _grammar() -> Any:
    import tree_sitter_typescript

    return tree_sitter_typescript.language_typescript()


def compiler_folder() -> Path | None:
    """The folder of the npm package ``typescript``, None when there is none."""
    if folder := os.environ.get(PACKAGE):
        return Path(folder).resolve() if (Path(folder) / "package.json").is_file() else None
    executable = find("tsc")
    return executable.parent.parent if executable and (executable.parent.parent / "package.json").is_file() else None


def missing() -> str | None:
    """None when compiler and node are installed, else the command that installs the missing one."""
    if find("node") is None:
        return "apt-get install nodejs npm && " + ADVICE
    return None if compiler_folder() else ADVICE


def version() -> str:
    """The compiler's version and node's."""
    return tool_version((*_tsc(_folder(), str(_folder())), "--version")) + f" on node {node_version()}"


def _folder() -> Path:
    return need("TypeScript", compiler_folder(), missing())


def _tsc(folder: Path, mount: str) -> tuple[str, ...]:
    """The command that starts the compiler, whose folder is mounted at ``mount``: the native one without node."""
    for native in sorted(folder.glob("node_modules/@typescript/typescript-linux-*/lib/tsc")):
        return (f"{mount}/{native.relative_to(folder)}",)
    for sibling in sorted(folder.parent.glob("@typescript/typescript-linux-*/lib/tsc")):
        return (str(sibling),)
    return (str(node()), f"{mount}/lib/tsc.js")


def _run(sandbox: Runner, options: tuple[str, ...], sources: dict[str, bytes], collect: tuple[str, ...]) -> Execution:
    folder = _folder()
    command = _tsc(folder, INSIDE)
    folders = {folder: INSIDE, **mounts(node())}
    if not command[0].startswith((INSIDE, str(node()))):
        package = Path(command[0]).parent.parent  # npm put the native compiler beside the package, not below it
        folders[package], command = f"{INSIDE}-native", (f"{INSIDE}-native/lib/tsc",)
    return sandbox.run(
        [*command, *OPTIONS, *options, *sources],
        files=sources,
        limits=replace(fit(compile_limits()), processes=128),
        mounts=folders,
        collect=collect,
    )


def build(sandbox: Runner, program: Program) -> Built:
    """``program.js`` and ``tests.js`` in a folder of the cache, or the syntax errors."""
    sources = {"program.ts": program.code.encode()}
    if program.tests:
        sources["tests.ts"] = program.tests.encode()
    outputs = tuple(name.replace(".ts", ".js") for name in sources)
    options = ("--noCheck", "--noLib")
    key: tuple[str | bytes, ...] = ("TypeScript", version(), *OPTIONS, *options, *sources, *sources.values())
    everything = {**sources, "none.d.ts": NO_LIBRARY}
    return compile_once(key, lambda: _run(sandbox, options, everything, outputs), outputs, _faults)


def _faults(output: bytes) -> tuple[Fault, ...]:
    text = output.decode("utf-8", "replace")
    faults = tuple(
        Fault(int(match["line"]), int(match["column"]), match["message"], match["rule"])
        for match in _DIAGNOSTIC.finditer(text)
    )
    return faults or (Fault(0, 0, text.strip().split("\n")[0] or "the compiler failed without a message"),)


def start(built: Built, program: Program) -> Start:
    """The compiled scripts, as JavaScript."""
    if built.folder is None:
        raise ValueError("a program that was not built cannot be started")
    names = ("program.js", "tests.js") if program.tests else ("program.js",)
    return start_scripts({name: (built.folder / name).read_bytes() for name in names})


def examine(sandbox: Runner, code: str) -> Examined:
    """Syntax errors as errors, type errors as warnings, because the program runs regardless."""
    sources = {"program.ts": code.encode(), "node.d.ts": NODE_NAMES}
    done = _run(sandbox, ("--noEmit",), sources, ())
    if done.ok:
        return Examined()
    faults = _faults(done.stdout or done.stderr)
    errors = tuple(
        fault for fault in faults if not fault.rule or (fault.rule.startswith("TS1") and len(fault.rule) == 6)
    )
    return Examined(errors, tuple(fault for fault in faults if fault not in errors))


TYPESCRIPT = Language(
    name="typescript",
    title="TypeScript",
    aliases=("ts", "tsx", "mts", "cts"),
    suffix=".ts",
    grammar=_grammar,
    openers=r"^(?:(?:export\s+|declare\s+)?(?:async\s+)?(?:const|let|var|function\*?|class|interface|type|enum)\s+[\w{\[]|import\s+[\w{*'\"]|/\*\*)",
    definition=DEFINITION,
    missing=missing,
    version=version,
    assemble=assemble,
    build=build,
    start=start,
    examine=examine,
    runnable=lambda code: True,
    fit=fit,
)
