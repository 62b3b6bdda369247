"""A made-up study in the layout of a real one, for looking at the report and for its tests.

Writes what `gradatim study` leaves behind, without training: five arms, levels, bands, losses that fall and
accuracies that rise, all from a seed. ``python -m tests.report.make_study FOLDER`` writes one to look at.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from gradatim.stage import Counts, Fitted, StageResult, StageSpec, SuiteResult

BANDS = {"easy": 31_600, "medium": 6_400, "hard": 2_000}
LEVELS = {"1.1": 0.14, "1.2": 0.08, "2.1": 0.02, "2.2": -0.12, "3.1": 0.03, "3.2": -0.07, "4.1": -0.16}
BUDGET = 1_800_000
ARMS = {
    "baseline": ("Baseline", 0.0, ((1.0, (1, 1, 1)),)),
    "baseline-restarts": (
        "Baseline, same restarts",
        0.012,
        ((0.2, (1, 1, 1)), (0.25, (1, 1, 1)), (0.55, (1, 1, 1))),
    ),
    "sequential": ("Sequential", -0.041, ((1 / 3, (1, 0, 0)), (1 / 3, (0, 1, 0)), (1 / 3, (0, 0, 1)))),
    "incremental": ("Incremental", 0.022, ((0.21, (1, 0, 0)), (0.25, (1, 1, 0)), (0.54, (1, 1, 1)))),
    "hybrid": ("Hybrid", 0.044, ((0.17, (1, 0, 0)), (0.25, (0.5, 1, 0)), (0.58, (0.5, 0.5, 1)))),
}
FURTHER = {
    "blocked-curriculum": ("Blocked curriculum", 0.01, ((1.0, (1, 1, 1)),)),
    "interleaved-curriculum": ("Interleaved curriculum", 0.0, ((1.0, (1, 1, 1)),)),
    "hard-first": ("Hard first", -0.01, ((1.0, (1, 1, 1)),)),
    "sorted-once": ("Sorted once", 0.005, ((1.0, (1, 1, 1)),)),
    "zigzag": ("Zigzag", -0.002, ((1.0, (1, 1, 1)),)),
}
"""Five more arms, for pages with ten."""
PROGRAM = (
    "a = 4\nb = 7\nif a * {n} > b and not b < {n} :\n\ta = b - {n}\n\tprint(a)\nelse :\n\tprint(a + b)\n# output\n"
)


def make_study(
    folder: Path,
    seeds: Sequence[int] = (1, 2, 3),
    arms: Sequence[str] = tuple(ARMS),
    noise: float = 0.008,
    tests: int = 2_000,
    titles: Mapping[str, str] | None = None,
) -> Path:
    """Write a finished study and return its folder. ``noise`` is the spread of an arm's accuracy over seeds."""
    shown = {arm: (titles or {}).get(arm, (ARMS | FURTHER)[arm][0]) for arm in arms}
    _write(
        folder / "study.json",
        {
            "title": "Does an easy start help a small model to run programs in its head?",
            "arms": [{"name": arm, "title": title} for arm, title in shown.items()],
            "seeds": list(seeds),
            "baseline": "baseline",
            "controls": [arm for arm in arms if arm == "baseline-restarts"],
        },
    )
    for arm in arms:
        for seed in seeds:
            make_run(folder / arm / f"seed-{seed}", arm, seed, noise, tests)
    return folder


def make_run(folder: Path, arm: str, seed: int, noise: float = 0.008, tests: int = 2_000) -> Path:
    """Write one finished run and return its folder."""
    chance = random.Random(f"{arm} {seed}")
    shared = random.Random(f"seed {seed}").gauss(0, noise)  # what pairing by seed takes out
    _, gain, parts = (ARMS | FURTHER)[arm]
    final = 0.742 + gain + shared + chance.gauss(0, noise)
    stages = [(_name(shares), round(part * BUDGET), dict(zip(BANDS, shares, strict=True))) for part, shares in parts]
    compositions = [{band: round(BANDS[band] * share) for band, share in shares.items()} for *_, shares in stages]
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(
        f"title: The {arm} arm\nseed: {seed}\ndata: {{source: tinypy}}\nschedule: {{name: {arm}}}\n"
        "student: {preset: paper}\n"
    )
    _write(folder / "environment.json", {"python": "3.11.2", "torch": "2.13.0", "threads": 1})
    _write(folder / "cycle-00" / "table.json", _table())
    rows, start = [], 0
    for index, (name, tokens, shares) in enumerate(stages):
        rows += _losses(index, name, start, tokens, final, chance)
        start += tokens
        reached = final - 0.45 * math.exp(-4.5 * start / BUDGET) if index < len(stages) - 1 else final
        result = StageResult(
            cycle=0,
            index=index,
            spec=StageSpec(name, tuple(shares.values()), tokens),
            samples=sum(compositions[index].values()),
            composition=compositions[index],
            fitted=Fitted(
                steps=tokens // 4096, tokens=tokens, parameters=1_080_000, dropped=0, loss=rows[-2]["loss"],
                seconds=31.5, weights=f"{chance.getrandbits(256):064x}",
            ),
            evaluations=_evaluations(reached, tests, chance),
        )  # fmt: skip
        _write(folder / "cycle-00" / f"stage-{index:02d}-{name}" / "result.json", asdict(result))
    _write(folder / "finished.json", {"cycles": 1, "stages": len(stages)})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def _name(shares: Sequence[float]) -> str:
    return "+".join(band for band, share in zip(BANDS, shares, strict=True) if share) if not all(
        share == 1 for share in shares
    ) else "all"  # fmt: skip


def _losses(index: int, name: str, start: int, tokens: int, final: float, chance: random.Random) -> list[dict]:
    rows = []
    steps = max(8, tokens // 20_000)
    for step in range(1, steps + 1):
        seen = start + tokens * step // steps
        loss = (
            0.52
            + 1.2 * (0.9 - final)
            + 2.6 * math.exp(-9 * seen / BUDGET)
            + (0.25 * math.exp(-step / 3) if index else 0)
        )
        row = {
            "cycle": 0, "stage": index, "name": name, "step": step * 5, "tokens": seen - start, "run_tokens": seen,
            "loss": loss * (1 + chance.gauss(0, 0.02)), "learning_rate": 0.001,
        }  # fmt: skip
        rows.append(row)
        if step % 5 == 0 or step == steps:  # a row of its own, as the student writes it
            rows.append({**{k: v for k, v in row.items() if k != "loss"}, "validation_loss": loss * 1.03})
    return rows


def _counts(share: float, total: int, chance: random.Random) -> Counts:
    share = min(0.99, max(0.02, share))
    return Counts(sum(chance.random() < share for _ in range(total)), total)


def _split(share: float, shifts: Mapping[str, float], tests: int, chance: random.Random) -> dict[str, Counts]:
    return {value: _counts(share + shift, tests // len(shifts), chance) for value, shift in shifts.items()}


def _evaluations(share: float, tests: int, chance: random.Random) -> list[SuiteResult]:
    def suite(name: str, protocol: str, level: float) -> SuiteResult:
        counts = {
            "all": {"all": Counts(round(min(1, max(0, level)) * tests), tests)},
            "level": _split(level, LEVELS, tests, chance),
            "band": _split(level, {"hard": -0.2, "medium": -0.05, "easy": 0.08}, tests, chance),
            "twin": _split(level, {"new": -0.01, "twin": 0.03}, tests, chance),
        }
        return SuiteResult(name, protocol, counts, seconds=4.0)

    greedy = suite("output", "greedy", share)
    greedy = replace(greedy, examples=[_example(n, n % 3 != 1) for n in range(8)])
    lines = replace(suite("line", "greedy", share - 0.45), scores={"edit similarity": (0.71 * tests, tests)})
    return [greedy, suite("output", "paper", share - 0.035), suite("token", "paper", 0.66), lines]


def _example(n: int, passed: bool) -> dict:
    expected = f"# {7 - n}\n" if 2 <= n <= 7 else "# 11\n"
    return {
        "id": f"{n:016x}", "prompt": PROGRAM.format(n=n), "expected": expected,
        "attempt": expected if passed else f"# {n}\n", "passed": passed, "level": "2.2", "band": "hard",
    }  # fmt: skip


def _table() -> dict:
    edges = [0.5 * step for step in range(15)]
    weights = [0, 4, 9, 14, 8, 4, 2, 1.4, 0.9, 0.6, 0.4, 0.2, 0.1, 0.05]
    scale = sum(BANDS.values()) / sum(weights)
    return {
        "rows": sum(BANDS.values()),
        "levels": {level: 5_714 for level in LEVELS},
        "bands": {"names": list(BANDS), "edges": [2.0, 4.0], "counts": list(BANDS.values())},
        "histogram": {"metric": "om", "edges": edges, "counts": [round(weight * scale) for weight in weights]},
        "facts": {
            "dropped": {"division by zero": 1_204, "longer than the context": 3},
            "duplicates": 9_871,
            "twins": {"moved out of the test set": 512, "left": 0},
        },
        "test_rows": 2_000,
        "commonest": {"answer": "# 0\n", "test": 146},
    }


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    make_study(Path(sys.argv[1]))
