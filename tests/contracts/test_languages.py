"""The contract of every registered language: the same battery for each, with its real toolchain, behind real walls."""

from __future__ import annotations

from pathlib import Path

import pytest
from language_examples import EXAMPLES, Examples

from gradatim.errors import ToolchainMissing
from gradatim.languages import LANGUAGES, Language, named
from gradatim.languages.python import static_view
from gradatim.sandbox.command import Sandbox
from gradatim.sandbox.limits import Limits, Verdict

COMPILED = ("c", "cpp", "go", "java", "typescript")
SHORT = Limits(cpu_seconds=1.0)


@pytest.fixture(scope="session", autouse=True)
def cache(compiled_here: Path) -> Path:
    """Every test here compiles into the tests' own cache."""
    return compiled_here


@pytest.fixture(params=LANGUAGES.names())
def language(request: pytest.FixtureRequest) -> Language:
    return LANGUAGES.get(request.param)


@pytest.fixture
def toolchain(language: Language) -> Language:
    """The language, where it can be run."""
    if advice := language.missing():
        pytest.skip(f"no toolchain for {language.title}; try: {advice}")
    return language


@pytest.fixture
def examples(language: Language) -> Examples:
    return EXAMPLES[language.name]


def tried(language: Language, sandbox: Sandbox, code: str, tests: str) -> Verdict:
    setup, _, rest = tests.partition("\nfunc ") if language.name == "go" else ("", "", tests)
    program = language.assemble(code, "", f"func {rest}" if setup else rest, setup=setup)
    return language.check(sandbox, program, limits=SHORT)


def test_every_language_has_examples_here():
    assert sorted(EXAMPLES) == LANGUAGES.names()


def test_its_names_find_it(language):
    assert [named(name).name for name in (language.name, *language.aliases, language.title.upper())] == [
        language.name
    ] * (len(language.aliases) + 2)


# extracting


def test_a_fence_with_any_of_its_names_is_found(language, examples):
    for name in (language.name, *language.aliases, language.title):
        found = language.extract(f"Here it is:\n\n```{name}\n{examples.right}```\n\nIt adds.")
        assert (found.code, found.state, found.blocks) == (examples.right, "fenced", 1)


def test_a_fence_of_another_language_is_not_its_code(language, examples):
    assert language.extract(f"```cobol\n{examples.right}```\n").state == "none"


def test_of_several_blocks_the_one_that_defines_the_entry_point_is_taken(language, examples):
    name = language.defined(examples.right)[-1]
    fence = f"```{language.name}\n"
    reply = f"```\n{examples.whole * 3}```\nand\n{fence}{examples.whole}```\n{fence}{examples.right}```\n"
    found = language.extract(reply, name)
    assert (found.code, found.blocks) == (examples.right, 2)


def test_a_fence_that_is_never_closed_is_incomplete(language, examples):
    found = language.extract(f"Sure!\n```{language.name}\n{examples.right}")
    assert (found.state, found.code.strip()) == ("incomplete", examples.right.strip())


def test_prose_without_a_fence_holds_no_code(language):
    reply = "I am sorry. I cannot do that: the question (about adding) is unclear;\nplease say more.\n"
    found = language.extract(reply)
    assert (found.code, found.state) == ("", "none")


def test_code_between_prose_without_fences_is_found(language, examples):
    found = language.extract(f"This is my answer.\n\n{examples.right}\nIt adds two numbers, as you asked.\n")
    assert (found.code.strip(), found.state) == (examples.right.strip(), "bare")


# parsing


def test_right_programs_parse(language, examples):
    assert [language.parses(code) for code in (examples.right, examples.tests, examples.whole, examples.ill)][:3] == [
        None
    ] * 3


def test_a_broken_program_does_not_parse_and_its_place_is_told(language, examples):
    fault = language.parses(examples.broken)
    line = next(index for index, line in enumerate(examples.broken.split("\n"), 1) if "a +" in line)
    assert fault is not None
    assert fault.line in (line, line + 1)


@pytest.mark.parametrize("text", ["int a\0b;", "x = '\udc80'", "(" * 2_000_000])
def test_text_that_is_no_code_is_a_fault(language, text):
    assert language.parses(text) is not None


# verdicts


def test_a_right_program_passes(toolchain, examples, sandbox):
    assert tried(toolchain, sandbox, examples.right, examples.tests) == Verdict(
        "passed", "every assertion held", pytest.approx(0, abs=30)
    )


def test_a_wrong_assertion_fails(toolchain, examples, sandbox):
    verdict = tried(toolchain, sandbox, examples.right, examples.wrong_tests)
    assert verdict.outcome == "failed"
    assert "ssert" in verdict.reason


def test_a_crash_fails(toolchain, examples, sandbox):
    verdict = tried(toolchain, sandbox, examples.crash, examples.tests)
    assert verdict.outcome == "failed"
    assert "compile" not in verdict.reason


def test_a_program_that_ends_with_0_before_the_last_assertion_does_not_pass(toolchain, examples, sandbox):
    verdict = tried(toolchain, sandbox, examples.leaves, examples.tests)
    assert (verdict.outcome, verdict.reason) == ("failed", "ended before the last assertion")


def test_a_success_mark_of_its_own_making_does_not_pass(toolchain, examples, sandbox):
    verdict = tried(toolchain, sandbox, examples.forges, examples.tests)
    assert (verdict.outcome, verdict.reason) == ("failed", "ended before the last assertion")


def test_an_endless_loop_is_a_timeout(toolchain, examples, sandbox):
    assert tried(toolchain, sandbox, examples.endless, examples.tests).outcome == "timeout"


def test_an_error_of_the_compiler_fails_and_is_told(toolchain, examples, sandbox):
    verdict = tried(toolchain, sandbox, examples.ill, examples.tests)
    assert verdict.outcome == "failed"
    assert ("does not compile" in verdict.reason) == (toolchain.name in COMPILED)
    assert "SyntaxError" in verdict.reason or toolchain.name in COMPILED


def test_a_program_of_its_own_passes_when_it_ends_well(toolchain, examples, sandbox):
    assert toolchain.check(sandbox, examples.whole, limits=SHORT).passed
    assert toolchain.check(sandbox, examples.whole_wrong, limits=SHORT).outcome == "failed"


@pytest.mark.parametrize(
    "text", ["", "int a\0b;", "x = '\udc80'", "x" * (5 << 20)], ids=["empty", "nul", "surrogate", "long"]
)
def test_text_that_no_compiler_can_be_given_is_invalid(toolchain, sandbox, text):
    assert toolchain.check(sandbox, text).outcome == "invalid"


def test_a_program_is_compiled_once(toolchain, examples, sandbox):
    program = toolchain.assemble(examples.whole + "\n", "", "")
    first = toolchain.build(sandbox, program)
    again = toolchain.build(sandbox, program)
    assert (first.folder, first.faults) == (again.folder, ())
    assert again.cpu_seconds == 0
    assert (first.cpu_seconds > 0) == (toolchain.name in COMPILED)


def test_verdicts_are_the_same_without_walls(toolchain, examples):
    with Sandbox(unsafe=True) as bare:
        verdicts = [
            tried(toolchain, bare, examples.right + "\n\n", tests) for tests in (examples.tests, examples.wrong_tests)
        ]
    assert [verdict.outcome for verdict in verdicts] == ["passed", "failed"]


# the toolchain


def test_a_missing_toolchain_tells_how_to_install_it(language, examples, sandbox, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("GRADATIM_TYPESCRIPT", raising=False)
    advice = language.missing()
    if language.name == "python":
        assert advice is None
        return
    assert advice is not None
    assert advice.startswith(("apt-get install ", "npm install "))
    with pytest.raises(ToolchainMissing, match=r"not on this machine.*install"):
        tried(language, sandbox, examples.right, examples.tests)


# the static view


def test_a_good_reply_is_complete_parses_compiles_and_runs(toolchain, examples, sandbox):
    view = static_view(toolchain, f"```{toolchain.name}\n{examples.whole}```", sandbox)
    assert (view.complete, view.parses, view.compiles, view.runs) == (True, True, True, True)
    assert (view.errors, view.ending) == ((), "")


def test_a_reply_that_fails_at_each_step_is_asked_no_further(toolchain, examples, sandbox):
    def of(code: str, close: str = "```") -> tuple[object, ...]:
        view = static_view(toolchain, f"```{toolchain.name}\n{code}{close}", sandbox, limits=SHORT)
        return view.complete, view.parses, view.compiles, view.runs, len(view.errors) > 0

    assert of("") == (True, False, None, None, True)
    assert of(examples.broken) == (True, False, None, None, True)
    assert of(examples.whole, "") == (False, True, True, True, False)
    assert of(examples.whole_wrong) == (True, True, True, False, False)
    assert static_view(toolchain, "I do not know.", sandbox).parses is False


def test_the_compilers_errors_have_their_place(toolchain, examples, sandbox):
    errors = toolchain.examine(sandbox, examples.ill).errors
    assert errors
    assert 1 <= errors[0].line <= examples.ill.count("\n") + 1
    assert errors[0].message
