"""The page: content and scripts as one HTML text, complete without a network.

Tables and counts are plain HTML, readable without a script; the map, the playground and the sorting are added by the
script. The policy in the page (Content-Security-Policy) allows this script and these styles by their hashes and no
request, except to the server of ``gradatim show``. Texts of runs are escaped, JSON and program texts too. The same map
and playground are an ``Insert`` of a report.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import reporting
from ..errors import UserError
from ..files import open_input, replacing
from ..reporting.summary import count, percent
from .content import Content, RunView, StageView, of_model, packed, plain, read, state_of
from .weights import DEFAULT_BITS, Bits, pack

if TYPE_CHECKING:
    from jinja2 import Environment

GENERATOR = '<meta name="generator" content="Gradatim show">'
TEMPLATES = ("page", "overview", "environments", "play", "questions", "data")
SCRIPTS = ("tinypy.js", "student.js", "page.js")
MOST_BYTES = 12_000_000
"""Students in one file, in bytes of base64; the last stages of the first runs come first."""


def is_page(path: Path) -> bool:
    """Whether the file is a page of this package."""
    with open_input(path) as file:
        return GENERATOR.encode() in file.read(4096)


def write_page(folders: Path | str | Iterable[Path | str], out: Path | str) -> Path:
    """Write the page of study and run folders to the file ``out`` atomically; return its path.

    The page holds the students of all stages of the first seed of each arm, at most ``MOST_BYTES`` of them. Raises what
    ``reporting.collect`` raises, ``UserError`` for a folder as ``out``, ``StorageFailed`` when the disk refuses.
    """
    out = _file(out)
    content = read(_paths(folders))
    return _write(render(content, embedded(content)), out)


def write_report(folders: Path | str | Iterable[Path | str], out: Path | str, *, targets: Sequence[float] = ()) -> Path:
    """Write the report of ``reporting.write_report`` with the map and the playground of ``write_page`` in it."""
    out = _file(out)
    paths = _paths(folders)
    content = read(paths)
    study = reporting.collect(paths, targets=targets)
    return reporting.write_page(study, out, insert=insert(content, embedded(content)))


def model_page(model: Path, bits: Bits = DEFAULT_BITS) -> str:
    """The page of one model folder as HTML text, with the test programs of its run where it has one.

    Raises ``DataError`` for a folder that is no model, is damaged, or holds a student that the page cannot carry.
    """
    content = of_model(model)
    (key,) = content.students
    return render(content, {key: base64.b64encode(pack(model, bits, content.students[key].probes)).decode()}, bits)


def _paths(folders: Path | str | Iterable[Path | str]) -> list[Path]:
    return [Path(folders)] if isinstance(folders, Path | str) else [Path(folder) for folder in folders]


def _file(out: Path | str) -> Path:
    out = Path(out)
    if out.is_dir():
        raise UserError("the page is a file, not a folder", where=out, hint=f"{out / 'page.html'}")
    return out


def _write(page: str, out: Path) -> Path:
    with replacing(out) as file:
        file.write(page.encode("utf-8", "backslashreplace"))
    return out


def embedded(content: Content) -> dict[str, str]:
    """The students of the page by the key of their stage, as base64 of ``weights.pack``."""
    arms: set[str] = set()
    stages: list[StageView] = []
    for run in content.runs:
        if run.arm not in arms and run.stages:
            arms.add(run.arm)
            stages += run.stages
    chosen: dict[str, str] = {}
    used = 0
    for stage in sorted(stages, key=lambda stage: (-stage.cycle, -stage.index)):
        if stage.student.computed == "page":
            folder = stage.student.folder
            text = base64.b64encode(packed(folder, state_of(folder), stage.student.probes)).decode()
            used += len(text)
            if used > MOST_BYTES:
                break
            chosen[stage.key] = text
    return chosen


def render(content: Content, students: dict[str, str] | None = None, bits: Bits = DEFAULT_BITS) -> str:
    """The page as HTML text. ``students``: those in the page; None for the page of the server, which fetches them.

    ``bits``: stored bits of their weights.
    """
    from markupsafe import Markup

    style = _asset("page.css") + _asset("play.css")
    return (
        _environment()
        .get_template("page")
        .render(
            content=content,
            policy=policy(style, served=students is None),
            style=Markup(style),
            overview=Markup(overview(content)),
            questions=Markup(questions(content)),
            **_variables(content, students, bits),
        )
    )


def insert(content: Content, students: dict[str, str]) -> reporting.Insert:
    """The map and the playground for a report."""
    environment, variables = _environment(), _variables(content, students, DEFAULT_BITS)
    return reporting.Insert(
        section=environment.get_template("play").render(content=content, **variables),
        style=_asset("play.css"),
        scripts=tuple(_asset(name) for name in SCRIPTS),
        data=environment.get_template("data").render(**variables),
    )


def _variables(content: Content, students: dict[str, str] | None, bits: Bits) -> dict[str, Any]:
    """Variables of the templates of the map, the playground and their data."""
    from markupsafe import Markup

    return {
        "data": Markup(_json({**plain(content), "served": students is None})),
        "students": [(key, Markup(text)) for key, text in (students or {}).items()],
        "scripts": [(name, Markup(_asset(name))) for name in SCRIPTS],
        "weights": "" if bits == 32 else f"Weights are rounded to {bits} bits.",
    }


def _asset(name: str) -> str:
    return (files(__package__) / "assets" / name).read_text("utf-8")


def overview(content: Content) -> str:
    """The part of the page that changes while runs train: result, tables of the runs, counts of the map."""
    return _environment().get_template("overview").render(content=content, arms=_arms(content))


def questions(content: Content) -> str:
    """The trees of questions of runs with a teacher; empty without any."""
    return _environment().get_template("questions").render(content=content).strip()


def policy(style: str, *, served: bool) -> str:
    """The Content-Security-Policy of the page."""
    scripts = " ".join(f"'sha256-{_digest(_asset(name))}'" for name in SCRIPTS)
    requests = "'self'" if served else "'none'"
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'sha256-{_digest(style)}'; "
        f"connect-src {requests}; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _environment() -> Environment:
    """The page's templates, each compiled once per process."""
    from jinja2 import DictLoader, Environment, StrictUndefined

    loader = DictLoader({name: _asset(f"{name}.html.j2") for name in TEMPLATES})
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=loader
    )
    environment.filters |= {"count": count, "percent": percent, "points": _points, "one_line": _one_line}
    return environment


def _json(value: Any) -> str:
    """JSON for a script element: no text can end the element or open a comment in it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _arms(content: Content) -> list[tuple[str, Sequence[RunView], list[list[StageView | None]]]]:
    """(arm, its runs, the stages of the first one as rows of cycles, filled up with None)."""
    runs: dict[str, list[RunView]] = {}
    for run in content.runs:
        runs.setdefault(run.arm, []).append(run)
    arms: list[tuple[str, Sequence[RunView], list[list[StageView | None]]]] = []
    for arm, members in runs.items():
        cycles: dict[int, dict[int, StageView]] = {}
        for stage in members[0].stages:
            cycles.setdefault(stage.cycle, {})[stage.index] = stage
        width = 1 + max((index for row in cycles.values() for index in row), default=0)
        arms.append((arm, members, [[row.get(index) for index in range(width)] for row in cycles.values()]))
    return arms


def _points(curve: Sequence[tuple[int, float]], width: int = 240, height: int = 48) -> str:
    """The points of a polyline of (tokens, loss) in a box of ``width`` x ``height``."""
    if len(curve) < 2:
        return ""
    right, top = curve[-1][0] or 1, max(loss for _, loss in curve) or 1
    return " ".join(f"{width * x / right:.1f},{height - height * y / top:.1f}" for x, y in curve)


def _one_line(text: str) -> str:
    """The lines of a question in one, without its last line ``# output``, cut to 70 characters."""
    lines = [line.strip() for line in text.removesuffix("# output\n").splitlines() if line.strip()]
    line = " ⏎ ".join(lines)
    return line if len(line) <= 70 else f"{line[:69]}…"
