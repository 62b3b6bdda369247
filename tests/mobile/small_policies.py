"""A recipe of a policy that trains in seconds, and its schedules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gradatim.experiment.recipe import Recipe, load

TARGET = "2 stations, 3 users, speed 1.5"

RECIPE = f"""
title: A policy in seconds
seed: 1
threads: 1
data:
  source: mobile
  count: 24
  environments:
    - {{stations: 1, users: 2, speed: 0}}
    - {{stations: 2, users: 3, speed: 1.5}}
  steps: 20
  seed: 7
  split: {{by: text, validation: 8, test: 8}}
difficulty: {{metric: load, bands: {{names: [still, target], thresholds: [5]}}}}
schedule: {{name: only, band: target}}
budget: {{steps: 640}}
student:
  {{kind: policy, users: 3, stations: 2, hidden: [16, 16], num_envs: 4, episodes: 2, batch_size: 80, n_epochs: 2}}
evaluate: {{suites: [{{suite: episodes, levels: ["{TARGET}"]}}]}}
"""

DESIGN = """{"reason": "Standing users first.", "cycles": [
  {"stages": [{"name": "start", "share": 0.25, "bands": {"still": 1}, "objective": "connected"},
              {"name": "goal", "share": 0.25, "bands": {"target": 1}, "objective": "utility"}]},
  {"stages": [{"name": "goal", "share": 0.5, "bands": {"target": 1}}]}]}"""
REVISED = """{"reason": "All that is left for the target.", "cycles": [
  {"stages": [{"name": "end", "share": 1, "bands": {"target": 1}, "objective": "worst_user"}]}]}"""


def designed(design: str = DESIGN, revised: str = REVISED) -> list[str]:
    """The changes for two cycles of a design by a scripted teacher."""
    return [
        "cycles=2",
        "feedback={questions: 6}",
        "schedule={name: designed, objectives: [connected, worst_user], stages: 3}",
        f"teacher={{name: scripted, replies: {{revise the rest: {_quoted(revised)}, stage table: {_quoted(design)}}}}}",
    ]


def _quoted(text: str) -> str:
    return "'" + " ".join(text.split()).replace("'", "''") + "'"


def policy_recipe(folder: Path, changes: Sequence[str] = ()) -> Recipe:
    """The recipe with ``changes``, by a file in ``folder``."""
    path = folder / "policy.yaml"
    path.write_text(RECIPE)
    return load(path, changes)
