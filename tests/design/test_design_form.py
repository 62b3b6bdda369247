"""What of a teacher's reply is a design, and what is told of one that is none."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.design import SCHEMA, Design, Terms, read_design, schema_for
from gradatim.stage import StageSpec

TERMS = Terms(
    bands=("easy", "medium", "hard"),
    cycles=2,
    tokens=1_000_003,
    stages=3,
    orders={"shuffled": {}, "sorted": {"first": "hard"}},
    objectives=("next_token", "answer_only"),
)
GOOD: dict[str, Any] = {
    "reason": "Easy first.",
    "cycles": [
        {
            "stages": [
                {
                    "name": "start",
                    "share": 0.3,
                    "bands": {"easy": 1, "medium": 0.25},
                    "end": "easiest",
                    "order": "sorted",
                },
                {"name": "all", "share": 0.3, "bands": {"easy": 1, "medium": 1, "hard": 1}, "objective": "answer_only"},
            ]
        },
        {"stages": [{"name": "all", "share": 0.4, "bands": {"hard": 1}, "objective": "next_token"}]},
    ],
}


def read(content: Any, terms: Terms = TERMS) -> tuple[Design | None, tuple[str, ...]]:
    return read_design(content if isinstance(content, str) else json.dumps(content), terms)


def changed(path: str, value: Any, content: Any = GOOD) -> Any:
    """``content`` with the value at a path such as ``cycles.0.stages``; ``...`` takes it away."""
    copied = copy.deepcopy(content)
    *above, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    parent = copied
    for part in above:
        parent = parent[part]
    if value is ...:
        del parent[last]
    else:
        parent[last] = value
    return copied


def test_a_design_becomes_the_stages_of_each_cycle_with_the_budget_kept_to_the_token() -> None:
    design, faults = read(GOOD)
    assert faults == ()
    assert design is not None
    first, second = design.cycles
    assert first[0] == StageSpec(
        "start", (1.0, 0.25, 0.0), 300_001, ("easiest",) * 3, "sorted", order_options={"first": "hard"}
    )
    assert [stage.objective for stage in (*first, *second)] == [None, "answer_only", None]
    assert sum(stage.tokens for stage in (*first, *second)) == TERMS.tokens
    assert (design.reason, design.kept) == ("Easy first.", False)


def test_shares_that_nearly_add_up_are_stretched_to_the_whole_budget() -> None:
    third = {"bands": {"easy": 1}, "share": 0.333}
    design, faults = read(
        {
            "reason": "r",
            "cycles": [
                {"stages": [{**third, "name": "a"}, {**third, "name": "b"}]},
                {"stages": [{**third, "name": "c"}]},
            ],
        }
    )
    assert faults == ()
    assert design is not None
    assert sum(stage.tokens for stages in design.cycles for stage in stages) == TERMS.tokens


def test_a_reply_may_stand_in_one_closed_fence_with_words_around_it() -> None:
    assert read(f"Here it is:\n```json\n{json.dumps(GOOD)}\n```\nGood luck!")[0] == read(GOOD)[0]
    for text in (f"```json\n{json.dumps(GOOD)}", f"```\n{{}}\n```\n```\n{json.dumps(GOOD)}\n```"):
        assert "exactly one closed block" in read(text)[1][0]


STAGE = "cycles.0.stages.0"
NAMES = ("", "../x", ".x", "a b", "ä", "x" * 41, 7, "a\n")
SHARES = (0, -0.1, 1.01, "0.3", True, None, [])
PARTS = (-0.1, 1.5, 1e-9, "1", False, None)
FAULTS = [
    ("", "not JSON"),
    ("{", "not JSON"),
    (f"Sure! {json.dumps(GOOD)}", "nothing may stand before or after"),
    ("null", "null"),
    ("[]", "an object is needed"),
    ("3", "an object is needed"),
    (json.dumps(GOOD).replace("0.3", "NaN"), "NaN is no number"),
    (json.dumps(GOOD).replace("0.3", "-Infinity"), "no number"),
    (json.dumps(GOOD).replace("0.3", "1e999"), "a number above 0"),
    (json.dumps(GOOD).replace("0.3", "9" * 5000), "not JSON"),
    (json.dumps(GOOD).replace("0.3", "9" * 4000), "a number above 0"),
    ("[" * 50_000, "nested too deeply"),
    ('{"reason": ' * 9_000, "nested too deeply"),
    (" " * 10_000_000 + json.dumps(GOOD), "at most 100,000"),
    ('{"reason": "a", "reason": "b"}', '"reason" stands twice'),
    (changed("reason", ...), "'reason' is missing"),
    (changed("reason", 3), "reason: say why"),
    (changed("reason", " \n"), "reason: say why"),
    (changed("reasons", "x"), 'no key "reasons"; did you mean'),
    (changed("cycles", ...), "cycles: missing"),
    (changed("cycles", {}), "cycles: a list"),
    (changed("cycles.0", 4), "cycles[0]: an object"),
    (changed("cycles.1", ...), "2 cycles are left to design, and there are 1 here"),
    (changed("cycles", [*GOOD["cycles"], *GOOD["cycles"]]), "and there are 4 here"),
    (changed("cycles.0.stages", []), "at least one stage"),
    (changed("cycles.0.stages", "all"), "at least one stage"),
    (changed("cycles.1.stages", GOOD["cycles"][1]["stages"] * 4), "at most 3 stages, not 4"),
    (changed(STAGE, None), "cycles[0].stages[0]: an object"),
    (changed(f"{STAGE}.name", ...), "'name' is missing"),
    *((changed(f"{STAGE}.name", name), "stages[0].name: 1 to 40") for name in NAMES),
    (changed(f"{STAGE}.name", "ALL"), '2 stages are called "all"'),
    *((changed(f"{STAGE}.share", share), "share: a number above 0") for share in SHARES),
    (changed(f"{STAGE}.share", ...), "'share' is missing"),
    (changed(f"{STAGE}.share", 0.2), "add up to 0.9, not to 1"),
    (changed(f"{STAGE}.share", 0.5), "add up to 1.2, not to 1"),
    (changed(f"{STAGE}.bands", ...), "'bands' is missing"),
    (changed(f"{STAGE}.bands", ["easy"]), "an object with a fraction for each band"),
    (changed(f"{STAGE}.bands", {}), "uses nothing"),
    (changed(f"{STAGE}.bands", {"easy": 0, "hard": 0.0}), "uses nothing"),
    (changed(f"{STAGE}.bands", {"midium": 1, "easy": 1}), "no band \"midium\"; did you mean 'medium'"),
    *((changed(f"{STAGE}.bands.easy", part), "bands.easy: 0, or 0.001 to 1") for part in PARTS),
    (changed(f"{STAGE}.order", "sortd"), "order: one of shuffled, sorted, not \"sortd\"; did you mean 'sorted'"),
    (changed(f"{STAGE}.order", "folded"), "order: one of shuffled, sorted"),
    (changed(f"{STAGE}.order", ["sorted"]), "order: one of"),
    (changed(f"{STAGE}.objective", "contrast"), "objective: one of next_token, answer_only"),
    (changed(f"{STAGE}.end", "middle"), "end: one of hardest, easiest, random"),
    (changed(f"{STAGE}.tokens", 5), 'no key "tokens"'),
    (changed("keep", True), "no plan yet"),
    (changed("keep", "yes"), "keep: true or false"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "told"), FAULTS, ids=[told[:40] for _, told in FAULTS])
def test_a_fault_is_told_in_one_line_that_says_where(content: Any, told: str) -> None:
    design, faults = read(content)
    assert design is None
    assert [fault for fault in faults if told in fault], faults
    assert all("\n" not in fault and len(fault) < 400 for fault in faults)


def test_all_faults_are_told_at_once() -> None:
    content = changed(f"{STAGE}.name", "no/folder")
    for path, value in (
        (f"{STAGE}.bands.easy", 2),
        (f"{STAGE}.order", "x"),
        ("cycles.1.stages.0.share", 0.9),
        ("more", 1),
    ):
        content = changed(path, value, content)
    faults = read(content)[1]
    assert len(faults) == 5
    for word in ("no/folder", "bands.easy", "order", "add up to 1.5", '"more"'):
        assert sum(word in fault for fault in faults) == 1


def test_shares_that_add_up_to_one_in_each_cycle_divide_equal_budgets() -> None:
    first, second = GOOD["cycles"][0], {"stages": [{**GOOD["cycles"][1]["stages"][0], "share": 1}]}
    total = sum(stage["share"] for stage in first["stages"])
    stages = [{**stage, "share": stage["share"] / total} for stage in first["stages"]]
    design, faults = read({**GOOD, "cycles": [{"stages": stages}, second]})
    assert design is not None, faults
    assert [sum(stage.tokens for stage in stages) for stages in design.cycles] == [
        pytest.approx(TERMS.tokens / 2, abs=1),
        pytest.approx(TERMS.tokens / 2, abs=1),
    ]
    stages[0]["share"] += 0.1  # one cycle with another sum, and the shares are of the whole budget again
    assert any(
        "add up to 2.1, not to 1" in fault for fault in read({**GOOD, "cycles": [{"stages": stages}, second]})[1]
    )


def test_a_share_that_is_worth_no_token_is_a_fault() -> None:
    terms = Terms(("easy",), 1, 100, 8, {"shuffled": {}}, ("next_token",))
    stages = [{"name": name, "share": share, "bands": {"easy": 1}} for name, share in (("a", 1.0), ("b", 1e-9))]
    design, faults = read({"reason": "r", "cycles": [{"stages": stages}]}, terms)
    assert design is None
    assert "none of the 100 tokens" in faults[0]


def test_a_stage_of_less_than_a_step_is_a_fault_since_no_student_can_learn_less() -> None:
    def of(share: float, tokens: int) -> tuple[str, ...]:
        stages = [
            {"name": name, "share": part, "bands": {"easy": 1}} for name, part in (("a", share), ("b", 1 - share))
        ]
        terms = Terms(("easy",), 1, tokens, 8, {"shuffled": {}}, ("next_token",), least=768)
        return read({"reason": "r", "cycles": [{"stages": stages}]}, terms)[1]

    assert of(0.05, 10_000) == (
        "a share is too small: its stage would get 500 of the 10,000 tokens, and one step of training takes 768",
    )
    assert of(0.1, 10_000) == ()
    assert of(0.2, 1_000) == ()  # a budget of one step in all cannot give every stage one


def test_a_plan_that_stands_can_be_kept_and_only_then() -> None:
    plan = read(GOOD)[0]
    assert plan is not None
    later = Terms(TERMS.bands, 2, TERMS.tokens, 3, TERMS.orders, TERMS.objectives, plan.cycles)
    design, faults = read({"reason": "It goes well.", "keep": True}, later)
    assert faults == ()
    assert design == Design("It goes well.", plan.cycles, kept=True)
    assert "cycles is left out" in read({**GOOD, "keep": True}, later)[1][0]
    assert read({**GOOD, "keep": False}, later)[0] == plan


def test_a_reason_holds_nothing_that_a_terminal_or_a_page_obeys() -> None:
    design, _ = read(changed("reason", "red \x1b[31m \u202e \ud800 end\r\n" + "x" * 9000))
    assert design is not None
    assert design.reason.startswith("red [31m end xxx")
    assert len(design.reason) < 4100
    design.reason.encode()


def test_the_form_names_what_may_be_chosen_and_no_more() -> None:
    form = schema_for(TERMS)
    stage = form["properties"]["cycles"]["items"]["properties"]["stages"]["items"]["properties"]
    assert list(stage["bands"]["properties"]) == list(TERMS.bands)
    assert stage["order"]["enum"] == ["shuffled", "sorted"]
    assert stage["objective"]["enum"] == ["next_token", "answer_only"]
    assert form["properties"]["cycles"]["minItems"] == form["properties"]["cycles"]["maxItems"] == 2
    assert "keep" not in form["properties"]
    assert "keep" in SCHEMA["properties"]  # the published one was not changed by it
    assert "enum" not in SCHEMA["properties"]["cycles"]["items"]["properties"]["stages"]["items"]["properties"]["order"]
    assert json.loads(json.dumps(form)) == form


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
STAGES = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["a", "b", "c"]) | VALUES,
        "share": st.sampled_from([0.1, 0.25, 0.5, 1]) | VALUES,
        "bands": st.dictionaries(st.sampled_from(["easy", "medium", "hard"]), st.floats(0, 1), max_size=3) | VALUES,
    },
    optional={"order": st.sampled_from(["shuffled", "sorted"]) | VALUES, "end": st.just("random") | VALUES},
)
NEARLY = st.fixed_dictionaries(
    {
        "reason": st.text(),
        "cycles": st.lists(st.fixed_dictionaries({"stages": st.lists(STAGES, max_size=3)}), max_size=3),
    }
)


@settings(max_examples=150, deadline=None)
@given(st.text() | VALUES.map(json.dumps) | NEARLY.map(json.dumps), st.integers(1, 10**9))
def test_any_text_gives_faults_or_a_design_whose_tokens_add_up_exactly(text: str, tokens: int) -> None:
    terms = Terms(TERMS.bands, 2, tokens, 3, TERMS.orders, TERMS.objectives)
    design, faults = read_design(text, terms)
    assert (design is None) == bool(faults)
    if design is not None:
        assert sum(stage.tokens for stages in design.cycles for stage in stages) == tokens


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 1000), min_size=1, max_size=3), min_size=2, max_size=2), st.integers(10**4, 10**9)
)
def test_every_parting_of_the_budget_is_kept_to_the_token(weights: list[list[int]], tokens: int) -> None:
    total = sum(map(sum, weights))
    cycles = [
        {
            "stages": [
                {"name": f"s{index}", "share": part / total, "bands": {"hard": 1}} for index, part in enumerate(shares)
            ]
        }
        for shares in weights
    ]
    terms = Terms(TERMS.bands, 2, tokens, 3, TERMS.orders, TERMS.objectives)
    design, faults = read({"reason": "r", "cycles": cycles}, terms)
    assert faults == ()
    assert design is not None
    budgets = [stage.tokens for stages in design.cycles for stage in stages]
    assert sum(budgets) == tokens
    exact_budgets = [part / total * tokens for shares in weights for part in shares]
    assert all(abs(part - exact) <= 1 for part, exact in zip(budgets, exact_budgets, strict=True))
