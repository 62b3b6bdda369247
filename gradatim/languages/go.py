"""Go: compiler and linker called directly, on archives of the standard library made once.

``go build`` checks modules, caches and build tags before it compiles (measured, short program: 0.5 s); direct calls of
``compile`` and ``link`` take 0.15 s. An import file names the packages: parts of the standard library, and three
packages of this module instead of others. ``testing`` and ``github.com/stretchr/testify/assert`` (and ``require``) are
small replacements with the functions that tests of problems use, since there is no network to fetch testify from: ``T``
with Error, Errorf, Fatal, Fatalf, Fail, FailNow, Failed, Log, Logf, Helper, Name, Run, and the assertions Equal,
NotEqual, True, False, Nil, NotNil, InDelta, Len. A program that needs more of them does not compile. As the original,
``assert`` compares with ``reflect.DeepEqual``, byte slices by their content, and refuses functions.

The third package is the harness: it takes the nonce before any code of the program runs, calls the tests one after the
other, and writes the nonce when none failed. Its path is random, made once per machine, so that a candidate cannot
import it. Code and tests are two files of one package; a program without tests is run by its own ``main``. The archives
are made outside the sandbox, from the standard library and the texts below only.
"""

from __future__ import annotations

import functools
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import ToolchainMissing
from ..sandbox.limits import Execution, Limits
from .language import MARK, Built, Examined, Fault, Language, Program, Runner, Start, compile_limits
from .toolchain import cached_folder, compile_once, find, need, tool_version

TESTING = r"""
package testing

import (
	"fmt"
	"os"
	"runtime"
)

type T struct {
	name   string
	failed bool
}

type TB interface {
	Errorf(format string, values ...interface{})
	FailNow()
	Helper()
}

func (t *T) Name() string                                  { return t.name }
func (t *T) Helper()                                       {}
func (t *T) Fail()                                         { t.failed = true }
func (t *T) FailNow()                                      { t.failed = true; runtime.Goexit() }
func (t *T) Failed() bool                                  { return t.failed }
func (t *T) Log(values ...interface{})                     { fmt.Fprintln(os.Stderr, values...) }
func (t *T) Logf(format string, values ...interface{})     { fmt.Fprintf(os.Stderr, format+"\n", values...) }
func (t *T) Error(values ...interface{})                   { t.Log(values...); t.Fail() }
func (t *T) Errorf(format string, values ...interface{})   { t.Logf(format, values...); t.Fail() }
func (t *T) Fatal(values ...interface{})                   { t.Log(values...); t.FailNow() }
func (t *T) Fatalf(format string, values ...interface{})   { t.Logf(format, values...); t.FailNow() }

func (t *T) Run(name string, test func(t *T)) bool {
	inner := &T{name: t.name + "/" + name}
	done := make(chan bool)
	go func() {
		defer close(done)
		returned := false
		defer func() {
			if !returned {
				inner.failed = true
			}
		}()
		test(inner)
		returned = true
	}()
	<-done
	if inner.failed {
		t.failed = true
	}
	return !inner.failed
}
"""

ASSERT = r"""
package PACKAGE

import (
	"bytes"
	"fmt"
	"math"
	"reflect"
)

type TestingT interface {
	Errorf(format string, values ...interface{})
}

type Assertions struct{ t TestingT }

func New(t TestingT) *Assertions { return &Assertions{t} }

func report(t TestingT, good bool, text string, words []interface{}) bool {
	if !good {
		t.Errorf("assertion failed: %s %s", text, fmt.Sprint(words...))
		if stopper, can := t.(interface{ FailNow() }); can && REQUIRED {
			stopper.FailNow()
		}
	}
	return good
}

func ObjectsAreEqual(expected, actual interface{}) bool {
	if expected == nil || actual == nil {
		return expected == actual
	}
	left, is := expected.([]byte)
	if !is {
		return reflect.DeepEqual(expected, actual)
	}
	right, is := actual.([]byte)
	if !is {
		return false
	}
	if left == nil || right == nil {
		return left == nil && right == nil
	}
	return bytes.Equal(left, right)
}

func isNil(value interface{}) bool {
	if value == nil {
		return true
	}
	switch held := reflect.ValueOf(value); held.Kind() {
	case reflect.Chan, reflect.Func, reflect.Interface, reflect.Map, reflect.Ptr, reflect.Slice, reflect.UnsafePointer:
		return held.IsNil()
	}
	return false
}

func number(value interface{}) (float64, bool) {
	held := reflect.ValueOf(value)
	if !held.IsValid() || !held.Type().ConvertibleTo(reflect.TypeOf(0.0)) {
		return 0, false
	}
	return held.Convert(reflect.TypeOf(0.0)).Float(), true
}

func isFunction(value interface{}) bool {
	return value != nil && reflect.TypeOf(value).Kind() == reflect.Func
}

func Equal(t TestingT, expected, actual interface{}, words ...interface{}) bool {
	good := !isFunction(expected) && !isFunction(actual) && ObjectsAreEqual(expected, actual)
	return report(t, good, fmt.Sprintf("expected %#v, got %#v", expected, actual), words)
}

func NotEqual(t TestingT, expected, actual interface{}, words ...interface{}) bool {
	return report(t, !ObjectsAreEqual(expected, actual), fmt.Sprintf("should not be %#v", actual), words)
}

func True(t TestingT, value bool, words ...interface{}) bool  { return report(t, value, "should be true", words) }
func False(t TestingT, value bool, words ...interface{}) bool { return report(t, !value, "should be false", words) }

func Nil(t TestingT, value interface{}, words ...interface{}) bool {
	return report(t, isNil(value), fmt.Sprintf("expected nil, got %#v", value), words)
}

func NotNil(t TestingT, value interface{}, words ...interface{}) bool {
	return report(t, !isNil(value), "should not be nil", words)
}

func InDelta(t TestingT, expected, actual interface{}, delta float64, words ...interface{}) bool {
	left, one := number(expected)
	right, two := number(actual)
	good := one && two && (math.Abs(left-right) <= delta || math.IsNaN(left) && math.IsNaN(right))
	return report(t, good, fmt.Sprintf("expected %v, got %v", expected, actual), words)
}

func Len(t TestingT, value interface{}, length int, words ...interface{}) bool {
	held := reflect.ValueOf(value)
	good := false
	switch held.Kind() {
	case reflect.Array, reflect.Chan, reflect.Map, reflect.Slice, reflect.String:
		good = held.Len() == length
	}
	return report(t, good, fmt.Sprintf("%#v should have length %d", value, length), words)
}

func (a *Assertions) Equal(expected, actual interface{}, words ...interface{}) bool {
	return Equal(a.t, expected, actual, words...)
}
func (a *Assertions) NotEqual(expected, actual interface{}, words ...interface{}) bool {
	return NotEqual(a.t, expected, actual, words...)
}
func (a *Assertions) True(value bool, words ...interface{}) bool         { return True(a.t, value, words...) }
func (a *Assertions) False(value bool, words ...interface{}) bool        { return False(a.t, value, words...) }
func (a *Assertions) Nil(value interface{}, words ...interface{}) bool    { return Nil(a.t, value, words...) }
func (a *Assertions) NotNil(value interface{}, words ...interface{}) bool { return NotNil(a.t, value, words...) }
func (a *Assertions) InDelta(expected, actual interface{}, delta float64, words ...interface{}) bool {
	return InDelta(a.t, expected, actual, delta, words...)
}
func (a *Assertions) Len(value interface{}, length int, words ...interface{}) bool {
	return Len(a.t, value, length, words...)
}
"""

HARNESS = r"""
package harness

import (
	"os"
	"testing"
)

var token, place = take()

func take() ([]byte, string) {
	text := make([]byte, 64)
	length, _ := os.Stdin.Read(text)
	folder, _ := os.Getwd()
	return text[:length], folder + "/MARK"
}

type Test struct {
	Name string
	Test func(*testing.T)
}

func finish(good bool) {
	if !good || os.WriteFile(place, token, 0600) != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

func Tests(tests ...Test) {
	all := &testing.T{}
	for _, test := range tests {
		all.Run(test.Name, test.Test)
	}
	finish(!all.Failed())
}

func Main(program func()) {
	program()
	finish(true)
}
""".replace("MARK", MARK)

STANDARD = (
    "bytes container/heap container/list container/ring crypto/md5 crypto/sha1 crypto/sha256 encoding/hex errors fmt "
    "math math/big math/bits math/cmplx math/rand regexp sort strconv strings time unicode unicode/utf8"
)
"""Packages that are imported for a program that uses them without an import, as HumanEval-X does."""

FURTHER = (
    "bufio cmp context encoding/base64 encoding/binary encoding/json hash/crc32 hash/fnv io iter maps math/rand/v2 os "
    "reflect runtime slices sync sync/atomic text/tabwriter unsafe"
)
"""Further packages that a program may import, where the toolchain has them."""


ADVICE = "apt-get install golang-go"
WORK, SUPPORT, PROGRAM, TOOLS = "/work", "/support", "/program", "/go"
OWN_MAIN = "gradatimCandidateMain"
PREDECLARED = (
    "any append bool byte cap complex complex128 complex64 copy delete error false float32 float64 int int16 int32 "
    "int64 int8 len make new nil panic real recover rune string true uint uint16 uint32 uint64 uint8"
)
"""Names that Go lets a package redeclare; all but ``min`` and ``max``, which older programs define."""

# The text is a model's output: no part of these patterns backtracks, so each position is read once.
_COMMENT = r"//[^\n]*+|/\*[^*]{0,500}\*/"
_NAMED = r"(?:[\w.]++[ \t]++)?(?:\"[^\"\n]++\"|`[^`\n]++`)"
_IMPORT = re.compile(
    rf"^[ \t]*+import\s*+(?:\((?P<many>(?:\s++|;|{_COMMENT}|{_NAMED})*+)\)|(?P<one>{_NAMED}))"
    rf"(?:[ \t]++|;|{_COMMENT})*+$",
    re.MULTILINE,
)
_SPEC = re.compile(rf"{_COMMENT}|(?:(?<![\w.])(?P<name>[\w.]++)[ \t]++)?[\"`](?P<path>[^\"`\n]++)[\"`]")
_PACKAGE = re.compile(r"^[ \t]*+package[ \t]++\w++[ \t]*+(?:;[ \t]*+)?$", re.MULTILINE)
_USED = re.compile(r"(?<![\w.])(\w++)\.[A-Z]")
_TEST = re.compile(r"^func[ \t]++(Test\w*+)[ \t]*+\([ \t]*+\w++[ \t]++\*testing\.T[ \t]*+\)", re.MULTILINE)
_MAIN = re.compile(r"^func[ \t]++main[ \t]*+\([ \t]*+\)", re.MULTILINE)
_DIAGNOSTIC = re.compile(r"^[^:\n]*\.go:(?P<line>\d{1,9}):(?:(?P<column>\d{1,9}):)? (?P<message>.*)$", re.MULTILINE)


def _grammar() -> Any:
    import tree_sitter_go

    return tree_sitter_go.language()


def missing() -> str | None:
    """None when the toolchain is installed, else the command that installs it."""
    return None if find("go") else ADVICE


def _go() -> Path:
    return need("Go", find("go"), ADVICE)


def version() -> str:
    """The compiler's version."""
    return tool_version((str(_go()), "version"))


def assemble(prompt: str, completion: str, tests: str, *, setup: str = "") -> Program:
    """Two files: the prompt with its completion, and the tests after ``setup`` (their package line and imports).

    Unused imports of the code are removed, and missing ones of ``STANDARD`` are added: both would keep a correct
    program from compiling, and HumanEval-X does the same.
    """
    return Program(_file("", f"{prompt}{completion}"), _file(setup, tests))


def _file(setup: str, text: str) -> str:
    text = _PACKAGE.sub("", f"{setup}\n{text}")
    specs = {}
    for statement in _IMPORT.finditer(text):
        for spec in _SPEC.finditer(statement["many"] or statement["one"]):
            if spec["path"]:
                specs[spec["name"] or spec["path"].rpartition("/")[2]] = spec[0]
    body = _IMPORT.sub("", text)
    required = {"_", ".", *_USED.findall(body)}
    used = {name: spec for name, spec in specs.items() if name in required}
    for path in STANDARD.split():
        name = path.rpartition("/")[2]
        if name not in specs and name in required:
            used[name] = f'"{path}"'
    imports = "".join(f"import {spec}\n" for spec in used.values())
    return f"package main\n\n{imports}\n{body.strip()}\n"


def runnable(code: str) -> bool:
    """Whether ``code`` has a ``main`` of its own."""
    return _MAIN.search(code) is not None


def build(sandbox: Runner, program: Program) -> Built:
    """The executable ``program`` in a folder of the cache, or the compiler's errors."""
    tests = _TEST.findall(program.tests or program.code)
    if not tests and not runnable(program.text):
        return Built(None, (Fault(0, 0, "there is neither a test nor a main"),))
    support = _support()
    harness = (support / "harness").read_text()
    called = ", ".join(f'harness.Test{{"{name}", {name}}}' for name in tests)
    start = f"harness.Tests({called})" if tests else f"harness.Main({OWN_MAIN})"
    reserved = _reserved(harness, program.tests)
    sources = {
        "program.go": _renamed(program.code),
        "tests.go": _renamed(program.tests),
        "start.go": f'package main\n\nimport harness "{harness}"\n{reserved}func main() {{ {start} }}\n',
    }
    files = {name: text.encode() for name, text in sources.items() if text}
    key: tuple[str | bytes, ...] = ("Go", version(), support.name, harness, *files, *files.values())
    return compile_once(key, lambda: _compile(sandbox, support, files), ("program",), _faults)


def _reserved(harness: str, tests: str) -> str:
    """Imports that keep the candidate from redefining ``true`` and other names of the tests.

    A name of an import in one file cannot be declared for the whole package.
    """
    used = sorted(set(re.findall(r"\w+", tests)) & set(PREDECLARED.split()))
    return "".join(f'import {name} "{harness}"\n' for name in used) + "".join(f"var _ {name}.Test\n" for name in used)


def _renamed(code: str) -> str:
    """The code with its ``main`` renamed, since the harness has one."""
    return _MAIN.sub(f"func {OWN_MAIN}()", code)


def _compile(sandbox: Runner, support: Path, files: dict[str, bytes], link: bool = True) -> Execution:
    # Paths in the import file are relative to its folder, and paths in the command are separate arguments, so that both
    # hold wherever they are mounted.
    command = 'cd "$1" && "$2/compile" -p main -complete -o "$3/program.o" -importcfg importcfg "$3"/*.go >&2'
    if link:
        command += ' && "$2/link" -importcfg importcfg -s -w -o "$3/program" "$3/program.o" >&2'
    return sandbox.run(
        ["/bin/sh", "-c", command, "go", SUPPORT, TOOLS, WORK],
        files=files,
        limits=fit(compile_limits()),
        mounts={support: SUPPORT, _tools(str(_go())): TOOLS},
        environment={"GOMAXPROCS": "1", "GOGC": "400"},
        collect=("program",) if link else (),
    )


def start(built: Built, program: Program) -> Start:
    """Run the executable."""
    if built.folder is None:
        raise ValueError("a program that was not built cannot be started")
    return Start((f"{PROGRAM}/program",), mounts={built.folder: PROGRAM})


def examine(sandbox: Runner, code: str) -> Examined:
    """The compiler's errors. Go's compiler has no warnings; it refuses what others warn of, such as unused names."""
    text = code if _PACKAGE.search(code) else f"package main; {code}"
    if not runnable(code):
        text += "\nfunc main() {}\n"
    done = _compile(sandbox, _support(), {"program.go": text.encode()}, link=False)
    return Examined(() if done.ok else _faults(done.stderr))


def _faults(stderr: bytes) -> tuple[Fault, ...]:
    text = stderr.decode("utf-8", "replace")
    faults = tuple(
        Fault(int(match["line"]), int(match["column"] or 0), match["message"]) for match in _DIAGNOSTIC.finditer(text)
    )
    return faults or (Fault(0, 0, text.strip().split("\n")[0] or "the compiler failed without a message"),)


def _environment() -> dict[str, str]:
    """The environment of ``go`` outside the sandbox: no settings of the user, nothing from the network."""
    fixed = {
        "GOPROXY": "off",
        "GOFLAGS": "",
        "GO111MODULE": "off",
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOENV": "off",
    }
    return {"PATH": os.environ.get("PATH", ""), "HOME": os.environ.get("HOME", "/"), **fixed}


def _go_run(folder: Path, *words: str) -> str:
    cache = {"GOCACHE": str(folder / "go-cache")}
    done = subprocess.run(
        [str(_go()), *words], cwd=folder, env={**_environment(), **cache}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ToolchainMissing("the toolchain of Go does not work", given=done.stderr[:300], hint=ADVICE)
    return done.stdout.strip()


@functools.cache
def _tools(go: str) -> Path:
    """The folder of the compiler and the linker."""
    return Path(
        subprocess.run([go, "env", "GOTOOLDIR"], env=_environment(), capture_output=True, text=True).stdout.strip()
    )


def _support() -> Path:
    """Archives of the standard library and of the packages above, and the import file with their paths."""
    return cached_folder("support", ("Go", version(), TESTING, ASSERT, HARNESS), _fill)


def _fill(folder: Path) -> None:
    listed: dict[str, str] = {}
    (folder / "archives").mkdir()
    available = set(_go_run(folder, "list", "std").split())
    standard = sorted(available & {*STANDARD.split(), *FURTHER.split()})
    output = _go_run(
        folder, "list", "-export", "-deps", "-f", "{{if .Export}}{{.ImportPath}} {{.Export}}{{end}}", *standard
    )
    for line in output.splitlines():
        name, _, archive = line.partition(" ")
        listed[name] = f"archives/{len(listed)}.a"
        shutil.copy(archive, folder / listed[name])
    harness = f"gradatim/{secrets.token_hex(16)}"
    packages = {"testing": TESTING, harness: HARNESS}
    for name, required in (("assert", "false"), ("require", "true")):
        packages[f"github.com/stretchr/testify/{name}"] = ASSERT.replace("PACKAGE", name).replace("REQUIRED", required)
    for name, text in packages.items():
        (folder / "source.go").write_text(text)
        _write_list(folder / "importcfg", listed)
        archive = f"archives/{len(listed)}.a"
        _go_run(
            folder, "tool", "compile", "-p", name, "-complete", "-o", archive, "-importcfg", "importcfg", "source.go"
        )
        listed[name] = archive
    _write_list(folder / "importcfg", listed)
    (folder / "harness").write_text(harness)
    _go_run(folder, "clean", "-cache")


def _write_list(path: Path, listed: Mapping[str, str]) -> None:
    path.write_text("".join(f"packagefile {name}={archive}\n" for name, archive in listed.items()))


def fit(limits: Limits) -> Limits:
    """Limits for Go's runtime, which maps far more memory than it uses and starts threads."""
    return replace(limits, address_space=False, processes=max(64, limits.processes))


GO = Language(
    name="go",
    title="Go",
    aliases=("golang",),
    suffix=".go",
    grammar=_grammar,
    openers=r"^(?:package\s+\w+|import\s*[(\"]|func\s+[\w(]|type\s+\w+\s|var\s+\w|const\s+[\w(])",
    definition=r"^func[ \t]++(?:\([^()]{0,500}\)[ \t]*+)?(\w++)[ \t]*+[(\[]",
    missing=missing,
    version=version,
    assemble=assemble,
    build=build,
    start=start,
    examine=examine,
    runnable=runnable,
    fit=fit,
)
