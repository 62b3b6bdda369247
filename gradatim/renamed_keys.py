"""Recipe keys and values of version 0.1 and their present names.

Recipes with the earlier names still load: ``renamed`` replaces them. Keys of stored data (datasets, scores, teacher
accounts, kept evaluations) are hashed with the earlier names, see ``earlier_names``, so that they are still found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import RecipeError

SUITE_KEYS = {"samples": "num_samples", "tokens": "max_new_tokens"}
"""Options of the suites ``SAMPLING_SUITES``."""
SAMPLING_SUITES = ("functional", "cruxeval")

KEYS: Mapping[str, Mapping[str, str]] = {
    "": {"delivery": "rejected_answers"},
    "rejected_answers": {"faulty": "sources", "prove": "verify"},
    "feedback": {"draws": "num_samples", "new_tokens": "max_new_tokens", "chat": "chat_template"},
    "schedule": {"introduction": "warmup_stage"},
    "student": {
        "vocabulary": "vocab_size",
        "context": "context_length",
        "template": "chat_template",
        "system": "system_prompt",
    },
    "train": {
        "size": "batch_size",
        "length": "max_length",
        "accumulate": "gradient_accumulation_steps",
        "clip": "max_grad_norm",
        "shape": "lr_scheduler",
        "restart": "reset_optimizer",
        "other_weight": "prompt_loss_weight",
        "validate": "evaluations_per_stage",
        "isolate": "block_diagonal_attention",
        "log_every": "logging_steps",
        "trace": "trace_supervision",
        "contrast": "preference",
        "kl": "distillation",
    },
    "train.optimizer": {"matrix_rate": "muon_learning_rate"},
    "train.lr_scheduler": {"warmup": "warmup_ratio", "decay": "decay_ratio", "floor": "min_lr_ratio"},
    "train.trace_supervision": {"operands": "variable_layer", "results": "result_layers", "values": "num_classes"},
    "train.preference": {"target": "gamma", "normalise": "length_normalized", "reference": "reference_free"},
    "train.distillation": {"folder": "teacher_model", "interpolation": "beta", "on": "answers"},
}
"""{section, in present names: {earlier key: present key}}."""

OBJECTIVES = {
    "traced": "trace_supervision",
    "contrast": "preference",
    "correct_and_fault": "sft_dpo",
    "teacher_kl": "distillation",
}

VALUES: Mapping[str, Mapping[Any, Any]] = {
    "student.tokenizer": {"lexical": "word_level"},
    "train.batching": {"windows": "random_crops"},
    "train.objective": OBJECTIVES,
    "schedule.objectives": OBJECTIVES,
    "train.preference.reference_free": {"stage_start": False, "none": True},
    "difficulty.metric": {"given": "column", "judged": "teacher_rating"},
}
"""{key, in present names: {earlier value: present value}}; of a list, the values of its items."""

ALIASES = ("correct_and_fault", "given", "judged")
"""Earlier values that remain valid names: no note."""


@dataclass
class Renaming:
    """A recipe in present names; ``pairs`` holds a text such as "train.size is now train.batch_size" for each change.

    ``order`` of the pairs is that of the recipe.
    """

    content: Any
    pairs: list[str] = field(default_factory=list)

    @property
    def note(self) -> str | None:
        """One line with all pairs, None without any."""
        return "; ".join(dict.fromkeys(self.pairs)) or None


def renamed(content: Any, where: object = "recipe") -> Renaming:
    """``content`` with present names. ``RecipeError`` when it has a key by both its earlier and its present name.

    Values that are no recipe, such as a list in place of a section, are returned unchanged.
    """
    renaming = Renaming(content)
    if isinstance(content, Mapping):
        renaming.content = _section(content, "", "", renaming.pairs, where)
    return renaming


def _section(
    content: Mapping[Any, Any], section: str, earlier_section: str, pairs: list[str], where: object
) -> dict[Any, Any]:
    """A section with present names. ``section`` and ``earlier_section``: its path in present and in given names."""
    result: dict[Any, Any] = {}
    for given, value in content.items():
        key = _present_key(section, given)
        earlier, present = _path(earlier_section, given), _path(section, key)
        if key != given and key in content:
            raise RecipeError(
                f"{earlier} is now {present}, and the recipe has both", where=where, allowed=f"{present} alone"
            )
        if key != given:
            pairs.append(f"{earlier} is now {present}")
        if isinstance(value, Mapping):
            value = _section(value, present, earlier, pairs, where)
        elif present == "evaluate.suites" and isinstance(value, list | tuple):
            value = [_suite(suite, pairs, where) for suite in value]
        else:
            value = _present_value(present, value, pairs)
        result[key] = value
    return result


def _present_key(section: str, key: Any) -> Any:
    return KEYS.get(section, {}).get(key, key) if isinstance(key, str) else key


def _path(section: str, key: Any) -> str:
    return f"{section}.{key}" if section else str(key)


def _suite(suite: Any, pairs: list[str], where: object) -> Any:
    if not isinstance(suite, Mapping):
        return suite
    options = {key: value for key, value in suite.items() if key != "suite"}
    changed = suite_options(suite.get("suite"), options, where)
    pairs += [
        f"evaluate.suites: {old} is now {new}" for old, new in SUITE_KEYS.items() if old in options and new in changed
    ]
    return {key: suite[key] for key in suite if key == "suite"} | changed


def suite_options(suite: Any, options: Mapping[Any, Any], where: object = "evaluate.suites") -> dict[Any, Any]:
    """The options of a suite in present names; ``RecipeError`` when one is given by both names."""
    if suite not in SAMPLING_SUITES:
        return dict(options)
    for old, new in SUITE_KEYS.items():
        if old in options and new in options:
            raise RecipeError(f"{old} is now {new}, and both are given", where=where, allowed=f"{new} alone")
    return {SUITE_KEYS.get(key, key) if isinstance(key, str) else key: value for key, value in options.items()}


def _present_value(path: str, value: Any, pairs: list[str]) -> Any:
    values = VALUES.get(path)
    if values is None:
        return value
    if isinstance(value, list | tuple):
        return [_present_value(path, item, pairs) for item in value]
    if not isinstance(value, str) or value not in values:
        return value
    present = values[value]
    if value not in ALIASES:
        pairs.append(f"{path}: {value} is now {_text(present)}")
    return present


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def earlier_names(content: Mapping[str, Any], section: str = "") -> dict[str, Any]:
    """The values of a recipe, or of its ``section``, with the keys and values of version 0.1: the inverse of
    ``renamed``, for hashes."""
    keys = {present: earlier for earlier, present in KEYS.get(section, {}).items()}
    result: dict[str, Any] = {}
    for key, value in content.items():
        path = _path(section, key)
        if isinstance(value, Mapping):
            value = earlier_names(value, path)
        elif path == "evaluate.suites":
            value = [_earlier_suite(suite) for suite in value]
        else:
            value = earlier_value(path, value)
        result[keys.get(key, key)] = value
    return result


def _earlier_suite(suite: Mapping[str, Any]) -> dict[str, Any]:
    return earlier_suite_options(suite) if suite["suite"] in SAMPLING_SUITES else dict(suite)


def earlier_suite_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of one of ``SAMPLING_SUITES`` with the names of version 0.1, in the same order."""
    keys = {present: earlier for earlier, present in SUITE_KEYS.items()}
    return {keys.get(key, key): value for key, value in options.items()}


def earlier_value(path: str, value: Any) -> Any:
    """The value of the key ``path`` (a present name) as version 0.1 wrote it."""
    if path not in VALUES:
        return value
    if isinstance(value, list | tuple):
        return [earlier_value(path, item) for item in value]
    return next(
        (earlier for earlier, present in VALUES[path].items() if present == value and type(present) is type(value)),
        value,
    )


def earlier_keys(section: str) -> Mapping[str, str]:
    """{earlier key: present key} of a section, both without the section's path."""
    return KEYS.get(section, {})


def renamed_keys() -> Iterator[tuple[str, str]]:
    """(earlier path, present path) of every key."""
    sections = {present: earlier for earlier, present in KEYS["train"].items()} | {"rejected_answers": "delivery"}
    for section, keys in KEYS.items():
        earlier = ".".join(sections.get(part, part) for part in section.split(".")) if section else ""
        for old, new in keys.items():
            yield _path(earlier, old), _path(section, new)
