"""The page: content and scripts as one HTML text, complete without a network.

Tables and counts are plain HTML, readable without a script; the map, the playground and the sorting are added by the
script. The policy in the page (Content-Security-Policy) allows this script and these styles by their hashes and no
request, except to the server of ``gradatim show``. Texts of runs are escaped, JSON and program texts too.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..files import open_input, replacing
from ..reporting.summary import count, percent
from .content import Content, RunView, StageView, packed, plain, read, state_of

if TYPE_CHECKING:
    from jinja2 import Environment

GENERATOR = '<meta name="generator" content="Gradatim show">'
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
    out = Path(out)
    if out.is_dir():
        raise UserError("the page is a file, not a folder", where=out, hint=f"{out / 'page.html'}")
    paths = [Path(folders)] if isinstance(folders, Path | str) else [Path(folder) for folder in folders]
    content = read(paths)
    page = render(content, embedded(content)).encode("utf-8", "backslashreplace")
    with replacing(out) as file:
        file.write(page)
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


def render(content: Content, students: dict[str, str] | None = None) -> str:
    """The page as HTML text. ``students``: those in the page; None for the page of the server, which fetches them."""
    assets = files(__package__) / "assets"
    style = (assets / "page.css").read_text("utf-8")
    script = "\n".join((assets / name).read_text("utf-8") for name in SCRIPTS)
    from markupsafe import Markup

    return (
        _environment()
        .get_template("page")
        .render(
            content=content,
            policy=policy(style, script, served=students is None),
            style=Markup(style),
            script=Markup(script),
            data=Markup(_json({**plain(content), "served": students is None})),
            students=[(key, Markup(text)) for key, text in (students or {}).items()],
            overview=Markup(overview(content)),
        )
    )


def overview(content: Content) -> str:
    """The part of the page that changes while runs train: result, tables of the runs, counts of the map."""
    return _environment().get_template("overview").render(content=content, arms=_arms(content))


def policy(style: str, script: str, *, served: bool) -> str:
    """The Content-Security-Policy of the page."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style)]
    requests = "'self'" if served else "'none'"
    return (
        f"default-src 'none'; script-src 'sha256-{hashes[0]}'; style-src 'sha256-{hashes[1]}'; "
        f"connect-src {requests}; base-uri 'none'; form-action 'none'"
    )


def _environment() -> Environment:
    from jinja2 import DictLoader, Environment, StrictUndefined

    assets = files(__package__) / "assets"
    loader = DictLoader({name: (assets / f"{name}.html.j2").read_text("utf-8") for name in ("page", "overview")})
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=loader
    )
    environment.filters |= {"count": count, "percent": percent, "points": _points}
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
