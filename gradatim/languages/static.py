"""Properties of a reply that need no tests.

Five steps, each taken only when the one before it succeeded: there is complete code, it parses, it compiles, it runs
without an error; and the warnings of compiler or linter. The results are values for a judge to weigh; no score is
computed here.

``compiles`` and ``runs`` are None where the step was not taken: because an earlier one failed, or, for ``runs``,
because the code has no entry of its own (a C function without ``main``). A successful run proves little: code that only
defines a function runs well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..sandbox.limits import Limits
from ..sandbox.verdict import printable
from .language import Extracted, Fault, Program, Runner, unusable

if TYPE_CHECKING:
    from .language import Language

__all__ = ["StaticView", "static_view"]


@dataclass(frozen=True)
class StaticView:
    """The results. ``errors``: the parser's or else the compiler's; ``warnings``: the linter's; with their positions.

    ``ending`` describes the end of the run when ``runs`` is False.
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
