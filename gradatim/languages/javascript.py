"""JavaScript: node runs the candidate's code and then the tests, as two scripts.

``console.assert`` only prints; here it makes the program fail, as an unhandled promise rejection does. The harness
takes the nonce, makes ``console`` a constant of the global object, so that a candidate cannot replace it, compiles both
scripts, and runs each by itself: a candidate that ends in an open comment, block or ``if (false)`` cannot swallow the
tests, ``return`` at the top is an error, and nothing that it replaces compiles or runs them. The nonce is written when
no work is pending (node's ``beforeExit``), so that assertions in promises and timers count; ``process.exit(0)`` comes
too early for it.

Code with ``import`` or ``export`` is run as one module instead. ``require('js-md5')``, which one problem of HumanEval-X
needs, is served by node's ``crypto``. Modules that inspect closures, the heap or other processes are refused.
Methods of values (``Array.prototype.every``), ``JSON``, ``Math`` and the functions of ``Object``, ``Number`` and
``Array`` cannot be replaced. The harness cannot guard iterators (``Array.prototype[Symbol.iterator]``), the import of
node's inspector by a module, and ``/proc/self/mem``.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..sandbox.limits import Limits
from .language import MARK, Built, Examined, Fault, Language, Program, Runner, Start, compile_limits
from .toolchain import find, mounts, need, tool_version

ADVICE = "apt-get install nodejs"
TITLE = "JavaScript"

FIXED = "console, JSON, Math, Object, Number, Array"
"""Names with a fixed meaning, whatever a candidate declares."""

REFUSED = "child_process cluster inspector inspector/promises module repl trace_events v8 vm wasi worker_threads"

HARNESS = (
    r"""
'use strict';
(() => {
  const fs = require('node:fs'), vm = require('node:vm'), path = require('node:path');
  const write = fs.writeFileSync, complain = fs.writeSync, crypto = require('node:crypto');
  const scripts = process.argv.slice(2), own = require, call = Reflect.apply, Script = vm.Script.prototype;
  const token = fs.readFileSync(0, 'latin1'), work = process.cwd() + path.sep;
  let failed = false, finished = false;
  const fail = (word, what) => {
    failed = true;
    process.exitCode = 1;
    let text = 'a value that cannot be shown';
    try { text = String((what && what.stack) || what); } catch (error) {}
    try { complain(2, word + ': ' + text.slice(0, 4000) + '\n'); } catch (error) {}
  };
  const assert = (claim, ...words) => {
    if (!claim) fail('Assertion failed', words.join(' ') || new Error('console.assert'));
  };
  const define = Object.defineProperty;
  const fixed = (target, name, value) => define(target, name, { value, writable: false, configurable: false });
  fixed(console, 'assert', assert);
  // What tests compare with: a candidate may add to these, not replace what is there.
  for (const name of 'FIXED'.split(', ').slice(1)) {
    for (const key of Reflect.ownKeys(globalThis[name])) {
      if (key !== 'prototype') fixed(globalThis[name], key, globalThis[name][key]);
    }
    fixed(globalThis, name, globalThis[name]);
  }
  for (const kind of [Object, Array]) fixed(kind.prototype, 'toJSON', undefined);
  // Methods of values: to set one sets it for that object alone. As accessors, since the engine slows down where
  // methods of arrays are read-only; nor does it bear a change of their iterators, so what symbols name is left.
  const kept = (target, key, value) => {
    const set = function (other) {
      if (this !== target) define(this, key, { value: other, writable: true, enumerable: true, configurable: true });
    };
    define(target, key, { get: () => value, set, configurable: false });
  };
  for (const { prototype } of [Array, BigInt, Boolean, Date, Map, Number, Object, Promise, RegExp, Set, String]) {
    for (const key of Object.getOwnPropertyNames(prototype)) {
      const { get, value } = Object.getOwnPropertyDescriptor(prototype, key);
      if (get && key !== '__proto__') define(prototype, key, { configurable: false });
      else if (!/^(constructor|toJSON)$/.test(key) && typeof value === 'function') kept(prototype, key, value);
    }
  }
  for (const name of ['apply', 'bind', 'call']) fixed(Function.prototype, name, Function.prototype[name]);
  for (const kind of [Script, Object.getPrototypeOf(Script)]) Object.freeze(kind);
  const run = Script.runInThisContext;
  fixed(globalThis, 'console', console);
  const md5 = (text) => crypto.createHash('md5').update(text).digest('hex');
  // What looks into closures, the heap or other processes, and the ways round this list.
  const refused = new Set('REFUSED'.split(' '));
  const known = (name) => {
    const plain = String(name);
    if (refused.has(plain.replace(/^node:/, ''))) throw new Error(`the module ${plain} is not available here`);
    return plain === 'js-md5' ? Object.assign(md5, { md5 }) : own(plain);
  };
  for (const name of ['_linkedBinding', 'binding', 'dlopen', 'getBuiltinModule', 'mainModule']) {
    fixed(process, name, undefined);
  }
  const place = { module: { exports: {} }, __dirname: process.cwd(), __filename: work + scripts[0], require: known };
  Object.assign(globalThis, place, { exports: place.module.exports });
  process.on('unhandledRejection', (reason) => fail('Unhandled rejection', reason));
  process.on('uncaughtException', (error) => fail('Uncaught', error));
  process.on('beforeExit', (code) => {
    if (finished && !failed && !code) write(work + 'MARK', token);
  });
  process.argv.length = 2;
  if (scripts[0].endsWith('.mjs')) {
    import(work + scripts[0]).then(() => { finished = true; }, (error) => fail('Uncaught', error));
    return;
  }
  try {
    // All are read and compiled before the first can write another, or replace what compiles.
    const compiled = scripts.map((name) => new vm.Script(fs.readFileSync(work + name, 'utf8'), { filename: name }));
    for (let at = 0; at < scripts.length; at++) call(run, compiled[at], []);
    finished = true;
  } catch (error) { fail('Uncaught', error); }
})();
""".replace("MARK", MARK)
    .replace("FIXED", FIXED)
    .replace("REFUSED", REFUSED)
)

DEFINITION = (
    r"^[ \t]*(?:export\s+(?:default\s+)?)?(?:async\s+)?(?:function\s*+\*?\s*+(?P<name>\w++)\s*+[<(]"
    r"|(?:const|let|var)\s++(?P<value>\w++)[^=\n]*+=\s*+(?:async\s*+)?(?:function\b|\(|\w++\s*+=>))"
)
_MODULE = re.compile(
    r"^[ \t]*+(?:import\s+[\w{*'\"]|export\s+(?:default|const|let|function|async|class|\{))", re.MULTILINE
)
_SYNTAX = re.compile(r"(?<!\d)(?P<line>\d{1,9}+)\n(?:.*\n){0,8}?(?P<message>SyntaxError: .*)")


def _grammar() -> Any:
    import tree_sitter_javascript

    return tree_sitter_javascript.language()


def missing() -> str | None:
    """None when node is installed, else the command that installs it."""
    return None if find("node") else ADVICE


def node() -> Path:
    """The interpreter."""
    return need(TITLE, find("node"), ADVICE)


def node_version() -> str:
    """Node's version."""
    return tool_version((str(node()), "--version"))


def assemble(prompt: str, completion: str, tests: str, *, setup: str = "") -> Program:
    """The prompt with its completion, and the tests as a separate script."""
    return Program(f"{setup}{prompt}{completion}", tests)


def build(sandbox: Runner, program: Program) -> Built:
    """A no-op: node compiles as it runs, and reports a syntax error then."""
    return Built()


def start_scripts(scripts: dict[str, bytes]) -> Start:
    """Run ``scripts`` in order."""
    command = (str(node()), "harness.js", *scripts)
    return Start(command, {"harness.js": HARNESS.encode(), **scripts}, mounts(node()))


def start(built: Built, program: Program) -> Start:
    """Two scripts, or one module."""
    if _MODULE.search(program.code):
        # One module, where its declarations would shadow the names that the harness has fixed.
        return start_scripts({"program.mjs": f"const {{ {FIXED} }} = globalThis; {program.text}".encode()})
    scripts = {"program.js": program.code.encode()}
    return start_scripts({**scripts, "tests.js": program.tests.encode()} if program.tests else scripts)


def examine(sandbox: Runner, code: str) -> Examined:
    """Errors of node's syntax check."""
    name = "program.mjs" if _MODULE.search(code) else "program.js"
    done = sandbox.run(
        [str(node()), "--check", name], files={name: code.encode()}, limits=fit(compile_limits()), mounts=mounts(node())
    )
    if done.ok:
        return Examined()
    text = done.stderr.decode("utf-8", "replace")
    match = _SYNTAX.search(text)
    if match:
        return Examined((Fault(int(match["line"]), 0, match["message"], "syntax"),))
    return Examined((Fault(0, 0, text.strip().split("\n")[0] or "node refused it without a message"),))


def fit(limits: Limits) -> Limits:
    """Limits for node, which maps far more memory than it uses and starts threads."""
    return replace(limits, address_space=False, processes=max(32, limits.processes))


JAVASCRIPT = Language(
    name="javascript",
    title=TITLE,
    aliases=("js", "node", "nodejs", "mjs", "cjs", "jsx", "ecmascript"),
    suffix=".js",
    grammar=_grammar,
    openers=r"^(?:(?:export\s+)?(?:async\s+)?(?:const|let|var|function\*?|class)\s+[\w{\[]"
    r"|import\s+[\w{*'\"]|/\*\*|'use strict')",
    definition=DEFINITION,
    missing=missing,
    version=node_version,
    assemble=assemble,
    build=build,
    start=start,
    examine=examine,
    runnable=lambda code: True,
    fit=fit,
)
