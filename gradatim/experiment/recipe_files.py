"""Recipe files and study files: names, lookup, ``extends`` and arms. Values are checked by ``recipe``.

A recipe file holds the keys of a recipe, and ``extends`` for the recipe that it changes. A study file holds recipes
that differ in a few keys:

    title: Schedules compared
    base: curriculum/baseline          # a recipe by name or file, or a recipe written out (with or without `extends`)
    baseline: baseline                 # the arm that the others are compared with
    seeds: 5
    arms:
      baseline: {}
      hybrid: {title: Hybrid, schedule: {name: hybrid}}

An arm is a recipe: ``curriculum/hybrid`` is an arm of the shipped ``curriculum.yaml``, ``my-study.yaml:hybrid`` an arm
of a file. A study file with ``hidden: true`` is a fixture of the tests, absent from ``gradatim list``.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ..errors import DataError, RecipeError, did_you_mean
from ..files import read_input
from ..options import parse_yaml

RECIPES = Path(__file__).parent.parent / "recipes"
LARGEST_RECIPE = 1 << 20
"""Limit in bytes of a recipe file."""
ENDINGS = (".yaml", ".yml")
STUDY_KEYS = ("title", "base", "baseline", "arms", "seeds", "hidden")
LIST_HINT = "gradatim list recipes"
ARM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
OTHER_FOLDERS = ("data",)
"""Folders of a study folder that hold no arm."""


class Location(NamedTuple):
    """A recipe file, or an arm of a study file."""

    path: Path
    arm: str | None = None

    def __str__(self) -> str:
        return str(self.path) if self.arm is None else f"{self.path}:{self.arm}"


class Layer(NamedTuple):
    """The keys that one file, arm or base adds to a recipe, without ``extends``."""

    where: str
    content: dict[str, Any]


@dataclass(frozen=True)
class StudyFile:
    """A study file with its structure checked; the values of its arms are not."""

    path: Path
    title: str
    base: str | dict[str, Any]
    baseline: str | None
    arms: Mapping[str, dict[str, Any]]
    seeds: int | None
    hidden: bool

    @property
    def name(self) -> str:
        """The name of a shipped study, the stem of any other file."""
        return self.path.stem

    def address(self, arm: str) -> str:
        """The recipe name of an arm: ``adaptive/mastery``, or ``FILE.yaml:ARM`` outside the package."""
        return f"{self.name}/{arm}" if is_shipped(self.path) else f"{self.path}:{arm}"


def names() -> list[str]:
    """Names of all shipped recipes, arms and fixtures included, such as ``curriculum/hybrid``; sorted."""
    return sorted(_shipped_recipes())


def shipped_studies() -> dict[str, StudyFile]:
    """The shipped study files by name, hidden ones included."""
    studies = {path.stem: _study_file(path) for path in sorted(RECIPES.glob("*.yaml"))}
    return {name: study for name, study in studies.items() if study is not None}


def title(name: str) -> str:
    """The title of the shipped recipe ``name``; the recipe is not checked. ``KeyError`` without such a recipe."""
    return _shipped_recipes()[name]


@cache
def _shipped_recipes() -> dict[str, str]:
    """The titles of the shipped recipes by name. Of a recipe file, only the line ``title:`` is parsed."""
    found: dict[str, str] = {}
    for study in shipped_studies().values():
        found |= {study.address(arm): str(content["title"]) for arm, content in study.arms.items()}
    for path in RECIPES.rglob("*.yaml"):
        if _study_file(path) is None:
            lines = (line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("title:"))
            name = path.relative_to(RECIPES).with_suffix("").as_posix()
            found[name] = next((str(parse_yaml(line)["title"]) for line in lines), "")
    return found


@cache
def _study_file(path: Path) -> StudyFile | None:
    """The shipped study file at ``path``; None for a recipe."""
    if path.parent != RECIPES:
        return None
    content = read_mapping(path)
    return parse_study(path, content) if is_study(content) else None


def is_shipped(path: Path) -> bool:
    """Whether a file belongs to the package."""
    return path.resolve().is_relative_to(RECIPES.resolve())


def find(name: str | Path) -> Location:
    """The file, and the arm, of a recipe given by path or name. ``RecipeError`` without such a recipe."""
    location = _find_file(name)
    if location is None:
        location = _find_shipped(_bare(str(name)))
    if location is not None:
        return location
    raise RecipeError(
        "there is no such recipe, neither a file nor a name",
        given=_short(str(name)),
        hint=_nearest(_bare(str(name))),
    )


def find_study(name: str | Path) -> StudyFile | None:
    """The study file given by path or name; None if ``name`` is a recipe. ``RecipeError`` as from ``find``."""
    location = find(name)
    if location.arm is not None:
        return None
    content = read_mapping(location.path)
    return parse_study(location.path, content) if is_study(content) else None


def files_of(name: str | Path) -> list[Path]:
    """The files that a recipe or study given by path or name is read from: its own and those that it extends."""
    study = find_study(name)
    if study is None:
        start = find(name)
    elif isinstance(study.base, str):
        start = _parent(Location(study.path), study.base, "base")
        return [study.path, *_paths(start)]
    else:
        start = Location(study.path, next(iter(study.arms)))
    return _paths(start)


def _paths(start: Location) -> list[Path]:
    return list(dict.fromkeys(location.path for location, _ in _chain(start)))


def layers(start: Location) -> list[Layer]:
    """What ``start`` is made of: its own keys first, then those of the recipes that it extends, at any depth.

    ``RecipeError`` for files that cannot be read, recipes that are not there, and circles.
    """
    return [layer for _, parts in _chain(start) for layer in parts]


def _chain(start: Location) -> Iterator[tuple[Location, list[Layer]]]:
    """Each location from ``start`` on along ``extends`` and ``base``, with its layers."""
    location: Location | None = start
    seen: list[Location] = []
    while location is not None:
        seen.append(Location(location.path.resolve(), location.arm))
        parts, parent = _location_layers(location)
        yield location, parts
        if parent is not None and Location(parent.path.resolve(), parent.arm) in seen:
            way = " -> ".join(_label(each) for each in [*seen, parent][-6:])
            raise RecipeError("recipes extend each other in a circle", where=start, given=_short(way, 300))
        location = parent


def _label(location: Location) -> str:
    return location.path.name if location.arm is None else f"{location.path.name}:{location.arm}"


def _location_layers(location: Location) -> tuple[list[Layer], Location | None]:
    """The layers of one file or arm, and the location that it extends."""
    path, arm = location
    content = read_mapping(path)
    if arm is None:
        if is_study(content):
            study = parse_study(path, content)
            raise RecipeError(
                "this is a study of several recipes, not a recipe",
                where=path,
                hint=f"gradatim study {study.name if is_shipped(path) else path}, "
                f"or one arm: {study.address(next(iter(study.arms)))}",
            )
        parent = _parent(location, content.pop("extends"), "extends") if "extends" in content else None
        return [Layer(str(path), content)], parent
    if not is_study(content):
        raise RecipeError("this is a recipe, not a study file with arms", where=path, given=_short(f":{arm}"))
    study = parse_study(path, content)
    if arm not in study.arms:
        raise unknown_arm(study, arm)
    parts = [Layer(f"{path}: arms.{arm}", dict(study.arms[arm]))]
    if isinstance(study.base, str):
        return parts, _parent(location, study.base, "base")
    base = dict(study.base)
    parent = _parent(location, base.pop("extends"), "base.extends") if "extends" in base else None
    return [*parts, Layer(f"{path}: base", base)], parent


def unknown_arm(study: StudyFile, arm: str) -> RecipeError:
    """The error for an arm that a study file does not have."""
    return RecipeError(
        "the study has no such arm",
        where=study.path if not is_shipped(study.path) else study.name,
        given=_short(arm),
        allowed=", ".join(study.arms),
        hint=did_you_mean(arm, study.arms),
    )


def read_mapping(path: Path) -> dict[str, Any]:
    """The keys and values of a recipe or study file. Errors quote nothing of a file that is neither."""
    try:
        text = read_input(path, LARGEST_RECIPE)
        content = parse_yaml(text)
    except DataError as error:
        raise RecipeError(error.message, where=path, given=error.given, allowed=error.allowed) from error
    except ValueError as error:
        raise RecipeError("this is not YAML", where=path, given=error) from error
    except OSError as error:
        raise RecipeError("the recipe cannot be read", where=path, given=error.strerror) from error
    if not isinstance(content, dict):
        raise RecipeError("a recipe is a mapping of keys to values", where=path, given=type(content).__name__)
    if is_study(content) and (key := _repeated_key(text)) is not None:
        raise RecipeError("a key stands twice in one mapping", where=path, given=_short(key), hint="keep one of them")
    return content


def is_study(content: Mapping[Any, Any]) -> bool:
    """Whether the content of a file is that of a study: it has arms or a base, which no recipe has."""
    return "arms" in content or "base" in content


def _repeated_key(text: bytes | str) -> str | None:
    """The first key that a mapping of a YAML text holds twice; YAML itself would keep the last."""
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    nodes = [yaml.compose(text, Loader=loader)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if twice := next((key for key in keys if keys.count(key) > 1), None):
                return str(twice)
            nodes += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value
    return None


def parse_study(path: Path, content: Mapping[Any, Any]) -> StudyFile:
    """Check the structure of a study file. ``RecipeError`` holds every fault."""
    faults = [*_head_faults(content), *_arm_faults(content)]
    if faults:
        raise RecipeError("; ".join(faults), where=path, faults=faults)
    arms = {arm: {"title": arm, **(overrides or {})} for arm, overrides in content["arms"].items()}
    return StudyFile(
        path=path,
        title=content.get("title", ""),
        base=content["base"],
        baseline=content.get("baseline"),
        arms=arms,
        seeds=content.get("seeds"),
        hidden=content.get("hidden", False),
    )


def _head_faults(content: Mapping[Any, Any]) -> Iterator[str]:
    """Faults in the keys of a study file, its arms apart."""
    for key in content:
        if key not in STUDY_KEYS:
            hint = did_you_mean(str(key), STUDY_KEYS) or "keys of a recipe belong under base or under an arm"
            yield f"{_short(str(key))}: unknown key of a study file ({hint})"
    base, seeds = content.get("base"), content.get("seeds", 1)
    if base is None:
        yield "base: missing (a recipe by name or file, or a recipe written out)"
    elif not (isinstance(base, dict) or (isinstance(base, str) and base.strip())):
        yield f"base: a recipe by name or file, or a recipe written out (given {_short(base)})"
    if not isinstance(content.get("title", ""), str):
        yield f"title: a text (given {_short(content['title'])})"
    if not isinstance(content.get("hidden", False), bool):
        yield f"hidden: true or false (given {_short(content['hidden'])})"
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        yield f"seeds: the number of seeds, 1 or more (given {_short(seeds)})"


def _arm_faults(content: Mapping[Any, Any]) -> Iterator[str]:
    """Faults in the arms of a study file and in its choice of a baseline."""
    arms = content.get("arms")
    if not isinstance(arms, dict) or not arms:
        given = "nothing" if not arms else _short(arms)
        yield f"arms: at least one arm with its overrides (given {given}; arms: {{baseline: {{}}, hybrid: {{…}}}})"
        return
    for arm, overrides in arms.items():
        if not isinstance(arm, str) or not ARM_NAME.fullmatch(arm) or arm in OTHER_FOLDERS:
            yield f"arms.{_short(arm)}: an arm is named by letters, digits, - _ and . and not {OTHER_FOLDERS[0]!r}"
        elif not isinstance(overrides, dict | None):
            yield f"arms.{arm}: a mapping of recipe keys (given {_short(overrides)})"
        elif overrides and "extends" in overrides:
            yield f"arms.{arm}.extends: every arm changes the study's base (remove extends)"
    baseline = content.get("baseline")
    if baseline is not None and baseline not in list(arms):
        hint = did_you_mean(str(baseline), [str(arm) for arm in arms])
        known = ", ".join(str(arm) for arm in arms)
        yield f"baseline: {_short(baseline)} is not among the arms ({hint or _short(known, 200)})"


def _find_file(name: str | Path) -> Location | None:
    """The location of a path, with or without ``:ARM``."""
    if is_file(Path(name)):
        return Location(Path(name))
    file, arm = split_arm(str(name))
    return Location(Path(file), arm) if arm is not None and is_file(Path(file)) else None


def _find_shipped(name: str) -> Location | None:
    """The shipped recipe or study ``name``, such as ``adaptive/mastery``, ``distill/coder`` and ``adaptive``."""
    if not re.fullmatch(r"[\w./:-]+", name) or ".." in name:
        return None
    file, arm = split_arm(name)
    if arm is None and is_file(RECIPES / f"{name}.yaml"):
        return Location(RECIPES / f"{name}.yaml")
    study, _, of_study = name.partition("/")
    path = RECIPES / (file if arm is not None else f"{study}.yaml")
    arm = arm or of_study
    found = _study_file(path) if is_file(path) else None
    return Location(path, arm) if found is not None and arm in found.arms else None


def _nearest(name: str) -> str:
    """A hint for a name that is not there: the nearest recipe or study, a fixture only if its study is named."""
    studies = shipped_studies()
    hidden = tuple(f"{key}/" for key, study in studies.items() if study.hidden and not name.startswith(f"{key}/"))
    known = [*(known for known in names() if not known.startswith(hidden)), *studies]
    return did_you_mean(name, known) or LIST_HINT


def _bare(name: str) -> str:
    """A name without the parts of its path in a checkout: ``recipes/smoke/x.yaml`` is ``smoke/x``."""
    tail = name.removeprefix("recipes/")
    return next((tail.removesuffix(ending) for ending in ENDINGS if tail.endswith(ending)), tail)


def split_arm(name: str) -> tuple[str, str | None]:
    """``FILE.yaml:ARM`` as (file, arm); the arm is None for a name without one."""
    file, colon, arm = name.rpartition(":")
    return (file, arm) if colon and file.endswith(ENDINGS) else (name, None)


def _parent(location: Location, name: Any, key: str) -> Location:
    """The recipe that ``location`` extends: a file beside it or in a folder named from there, or a shipped recipe."""
    path = location.path
    if not isinstance(name, str) or not name.strip():
        raise RecipeError("a recipe extends another by its name or file", where=f"{path}: {key}", given=_short(name))
    file, arm = split_arm(name)
    ended = file if file.endswith(ENDINGS) else f"{file}.yaml"
    # A file in the current folder must not change a shipped recipe.
    for candidate in (path.parent / ended, *(() if is_shipped(path) else (Path(ended),))):
        if is_file(candidate) and (arm is not None or candidate.resolve() != path.resolve()):
            return Location(candidate, arm)
    shipped = _find_shipped(_bare(name))
    if shipped is not None:
        return shipped
    raise RecipeError(
        "there is no such recipe to extend",
        where=f"{path}: {key}",
        given=_short(name),
        allowed="a .yaml file, or a name",
        hint=_nearest(_bare(name)),
    )


def is_file(path: Path) -> bool:
    """Whether a file is there; False also for names that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _short(value: Any, most: int = 60) -> str:
    """``value`` in few characters: text as it is, anything else as its repr."""
    text = value if isinstance(value, str) else _REPR.repr(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 60
