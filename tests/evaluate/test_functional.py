"""Facts about judging texts: which program a text makes, what is kept, and the suite around it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest
import torch
from behind_walls import ADD, TWICE, lines, walls
from transformers import GPT2Config, GPT2LMHeadModel
from waiting import wait_until

from gradatim.errors import DataError, RecipeError, Stopped, StorageFailed, UserError, WorkFailed
from gradatim.evaluation import SUITES, summary
from gradatim.evaluation import verdicts as judging
from gradatim.evaluation.generation import Question, Writing, endpoint, write
from gradatim.evaluation.problems import Sample, problem_of, read_samples
from gradatim.evaluation.statistics import Tally
from gradatim.evaluation.verdicts import (
    LARGEST,
    Candidate,
    Verdicts,
    candidate_of,
    judge,
    judge_once,
    reference,
    tallies,
)
from gradatim.languages import LANGUAGES
from gradatim.model.load import LoadedModel
from gradatim.model.tokenizer import character_tokenizer, encode_table
from gradatim.sandbox import command
from gradatim.sandbox.command import Sandbox
from gradatim.sandbox.limits import Verdict
from gradatim.sandbox.supervise import descendants, start_process

__all__ = ["walls"]  # a fixture

PROBLEMS = {problem.id: problem for problem in map(problem_of, (ADD, TWICE))}
RIGHT = Sample("add", "    return a + b\n")
ANSWER = "    return a + b\n"


def candidate(task: str, text: str, form: str = "reply") -> Candidate | Verdict:
    return candidate_of(PROBLEMS[task], Sample(task, text, form))  # type: ignore[arg-type]


def fenced(code: str) -> str:
    return f"Here you are:\n\n```python\n{code}```\nThat is all."


# Which program a text makes


def test_a_completion_follows_the_prompt_as_it_is():
    assert candidate("add", "  junk\x00", "completion") == Candidate(ADD["prompt"], "  junk\x00")


def test_a_whole_function_in_a_reply_stands_after_the_prompt_and_wins():
    found = candidate("add", fenced("def add(a, b):\n    return a + b\n"))
    assert isinstance(found, Candidate)
    space: dict[str, Any] = {}
    exec(found.before + found.code, space)
    assert space["add"](1, 2) == 3


def test_a_body_alone_in_a_reply_follows_the_prompt():
    assert candidate("add", fenced("    return a + b\n")) == Candidate(ADD["prompt"], "    return a + b\n")


def test_a_whole_program_needs_nothing_of_mbpps_prompt():
    assert candidate("Mbpp/7", "def twice(n):\n    return n", "solution") == Candidate(
        "", "def twice(n):\n    return n"
    )


INVALID = {
    "empty": (Sample("add", ""), "the completion is empty"),
    "blank": (Sample("add", " \n\t", "reply"), "the reply is empty"),
    "unclosed": (Sample("add", "```python\ndef add(a, b):\n    ret", "reply"), "not closed"),
    "prose": (Sample("add", "I cannot help with that.", "reply"), "no code"),
    "half a character": (Sample("add", "\ud800"), "not Unicode"),
    "endless": (Sample("add", "x" * (LARGEST + 1)), "at most 1,048,576"),
    "too long a prompt": (Sample("add", "", finish="too_long"), "longer than the model's context"),
    "an unknown character": (Sample("add", "", finish="unknown_character"), "outside the model's vocabulary"),
}


@pytest.mark.parametrize(("sample", "words"), INVALID.values(), ids=INVALID)
def test_a_text_that_cannot_be_tried_is_invalid_with_the_reason(sample, words):
    verdict = candidate_of(PROBLEMS["add"], sample)
    assert isinstance(verdict, Verdict)
    assert verdict.outcome == "invalid"
    assert words in verdict.reason


CPP = problem_of(
    {
        "task_id": "CPP/50",
        "prompt": "#include<string>\nusing namespace std;\n/* Shift. */\nint one(int a){\n    return a + 1;\n}\n"
        "// Two more.\nint two(int a){\n",
        "declaration": "int two(int a){\n",
        "test": "#include<assert.h>\nint main(){ assert(two(1) == one(one(1))); }\n",
    }
)
JAVA = problem_of(
    {
        "task_id": "Java/0",
        "prompt": "class Solution {\n    int three() {\n",
        "declaration": "class Solution {\n    int three() {\n",
        "test": "public class Main { public static void main(String[] a) {\n"
        "if (new Solution().three() != 3) throw new AssertionError(); } }\n",
    }
)


def test_a_whole_function_in_another_language_replaces_the_prompts_last_one():
    found = candidate_of(CPP, Sample(CPP.id, "```cpp\nint two(int a) {\n    return one(one(a));\n}\n```", "reply"))
    assert isinstance(found, Candidate)
    assert "int one(int a){" in found.before
    assert found.before.count("int two") == 0
    assert found.code.count("int two") == 1


def test_a_program_that_brings_the_helpers_too_keeps_only_the_header():
    code = "int one(int a) { return a + 1; }\nint two(int a) {\n    return a + 2;\n}\n"
    found = candidate_of(CPP, Sample(CPP.id, f"```c++\n{code}```", "reply"))
    assert found == Candidate("#include<string>\nusing namespace std;\n", code)


def test_a_method_without_its_class_stands_in_the_prompts_class():
    row = {
        "task_id": "Java/1",
        "prompt": "import java.util.*;\n\nclass Solution {\n    /** Sum. */\n    public int add(int a, int b) {\n",
        "test": "public class Main { }",
        "declaration": "",
    }
    method = "public int add(int a, int b) {\n    return a + b;\n}\n"
    found = candidate_of(problem_of(row), Sample("Java/1", f"```java\n{method}```", "reply"))
    assert isinstance(found, Candidate)
    program = found.before + found.code
    assert program.count("int add(") == 1
    assert program.count("{") == program.count("}")
    whole = f"class Solution {{\n{method}}}\n"
    found = candidate_of(problem_of(row), Sample("Java/1", f"```java\n{whole}```", "reply"))
    assert found == Candidate("import java.util.*;\n", whole)


HARD = ["a " + "&" * 5000 + ";", "a<" * 3000, "x " * 50_000, "int f(" * 20_000, "public int x\n" * 20_000, " " * 90_000]


@pytest.mark.parametrize("text", HARD, ids=range(len(HARD)))
@pytest.mark.parametrize("language", ["cpp", "java"])
def test_no_reply_makes_the_search_for_its_functions_slow(language, text):
    problem = problem_of(
        {"task_id": "CPP/1" if language == "cpp" else "Java/1", "prompt": "int f(int a) {\n", "test": ";"}
    )
    started = time.process_time()
    found = candidate_of(problem, Sample(problem.id, f"```{language}\n{text}\n```", "reply"))
    assert isinstance(found, Candidate | Verdict)
    assert time.process_time() - started < 2


# Judging


def outcomes(samples: list[Sample], **how: Any) -> dict[str, str]:
    return {each.sample.text: each.verdict.outcome for each in judge(PROBLEMS, samples, **how)}


@pytest.mark.usefixtures("walls")
def test_right_wrong_crashing_and_broken_programs_are_told_apart():
    found = outcomes(
        [
            RIGHT,
            Sample("add", "    return a - b\n", draw=1),
            Sample("add", "    return undefined\n", draw=2),
            Sample("add", "    return (\n", draw=3),
            Sample("add", "    import os\n    os._exit(0)\n", draw=4),
            Sample("7", "def twice(n):\n    return 2 * n\n"),
            Sample("7", "def twice(n):\n    return 4\n", draw=1),
            Sample("nowhere", "x"),
        ]
    )
    passed = [text for text, outcome in found.items() if outcome == "passed"]
    assert passed == [RIGHT.text, "def twice(n):\n    return 2 * n\n"]
    assert found["    return a - b\n"] == found["    return undefined\n"] == "failed"
    assert found["    import os\n    os._exit(0)\n"] == "failed"
    assert found["    return (\n"] in ("failed", "invalid")
    assert found["x"] == "invalid"


@pytest.mark.usefixtures("walls")
def test_a_source_with_nul_bytes_or_of_ten_megabytes_harms_nothing():
    found = list(judge(PROBLEMS, [Sample("add", "    return 1\0\n"), Sample("add", "#" * 10**7, draw=1), RIGHT]))
    assert {each.sample.draw: each.verdict.outcome for each in found if each.sample is not RIGHT}[1] == "invalid"
    assert [each.verdict.outcome for each in found if each.sample is RIGHT] == ["passed"]
    assert all(each.verdict.outcome != "passed" for each in found if each.sample is not RIGHT)


@pytest.mark.usefixtures("walls")
def test_results_come_in_the_order_of_the_samples_whatever_the_workers():
    slow = "    for _ in range(3_000_000): pass\n    return a + b\n"
    samples = [Sample("add", slow if draw % 3 == 0 else "    return a + b\n", draw=draw) for draw in range(9)]
    assert [each.sample.draw for each in judge(PROBLEMS, samples, workers=3)] == list(range(9))


@pytest.mark.usefixtures("walls")
@pytest.mark.parametrize(
    ("body", "outcome"), [("    return one(one(a));\n}\n", "passed"), ("    return a;\n}\n", "failed")]
)
def test_another_language_is_compiled_and_run(body, outcome):
    if (missing := LANGUAGES.get("cpp").missing()) is not None:
        pytest.skip(f"no C++ compiler; {missing}")
    (found,) = judge({CPP.id: CPP}, [Sample(CPP.id, body)])
    assert found.verdict.outcome == outcome, found.verdict.reason


@pytest.mark.usefixtures("walls")
@pytest.mark.parametrize("workers", [1, 2])
def test_java_programs_are_compiled_together_and_judged_in_their_order(workers, monkeypatch):
    if (missing := LANGUAGES.get("java").missing()) is not None:
        pytest.skip(f"no Java compiler; {missing}")
    monkeypatch.setattr(judging, "BATCH", 3)
    commands: list[list[str]] = []
    run = Sandbox.run

    def counted(self: Sandbox, command: list[str], **how: Any) -> Any:
        commands.append(command)
        return run(self, command, **how)

    monkeypatch.setattr(Sandbox, "run", counted)
    unique = secrets.token_hex(8)  # so that no cache knows these programs
    samples = [Sample(JAVA.id, f"        return {n} - 2; /* {unique} */ }}\n}}\n", draw=n) for n in range(6)]
    found = list(judge({JAVA.id: JAVA}, samples, workers=workers))
    assert [each.sample.draw for each in found] == list(range(6))
    assert [each.verdict.outcome for each in found] == ["failed"] * 5 + ["passed"]
    assert sum("GradatimCompile" in command for command in commands) == 2


@pytest.mark.usefixtures("walls")
def test_stopping_ends_programs_that_run_and_leaves_nothing(monkeypatch):
    if (missing := LANGUAGES.get("cpp").missing()) is not None:
        pytest.skip(f"no C++ compiler; {missing}")
    started: list[subprocess.Popen[bytes]] = []  # by this judge: other tests of the process have children of their own

    def recorded(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(start_process(*arguments, **options))
        return started[-1]

    def programs() -> list[Path]:
        running = []
        for folder in (Path(f"/proc/{process}") for process in descendants(os.getpid())):
            with suppress(OSError):  # a process that has ended
                if (folder / "cmdline").read_bytes().startswith(b"/program/"):
                    running.append(folder)
        return running

    monkeypatch.setattr(command, "start_process", recorded)
    samples = [Sample(CPP.id, "    return a;\n}\n"), Sample(CPP.id, "    for (;;) pause();\n}\n", draw=1)]
    problem = replace(CPP, prompt=f"#include <unistd.h>\n{CPP.prompt}")
    stream = judge({CPP.id: problem}, samples, workers=1)
    assert next(stream).verdict.outcome == "failed"
    wait_until(lambda: programs() != [])
    (running,) = programs()
    began = time.monotonic()
    stream.close()
    assert time.monotonic() - began < 10
    assert not running.exists()
    assert all(first.returncode is not None for first in started)


def test_what_could_not_be_judged_says_nothing_about_the_model():
    from gradatim.evaluation.verdicts import Judged

    found = [
        Judged(Sample("add", "", draw=0), Verdict("passed", "")),
        Judged(Sample("add", "", draw=1), Verdict("invalid", "empty")),
        Judged(Sample("add", "", draw=2), Verdict("unjudged", "the tests are broken")),
        Judged(Sample("gone", ""), Verdict("invalid", "no such problem")),
        Judged(Sample("7", ""), Verdict("timeout", "")),
    ]
    assert tallies(PROBLEMS, found) == {"add": Tally(2, 1), "Mbpp/7": Tally(1, 0)}


# What is kept

WRONG = [Sample("add", f"    return {number}\n", draw=number + 1) for number in range(6)]


class Stopping:
    """Hears events and asks to stop once so many samples are judged."""

    def __init__(self, after: int) -> None:
        self.after, self.total = after, 0.0

    def __call__(self, event: Any) -> None:
        if event.kind == "start":
            self.total = event.total
        if event.kind == "advance" and event.done >= self.after:
            raise Stopped("stopped")


@pytest.mark.usefixtures("walls")
def test_what_is_judged_before_a_stop_is_not_judged_again(tmp_path):
    path, samples = tmp_path / "v.jsonl", [RIGHT, *WRONG]
    with pytest.raises(Stopped):
        judge_once(path, PROBLEMS, samples, events=Stopping(3))
    first = path.read_bytes()
    assert first.count(b"\n") == 3
    path.write_bytes(first + b'{"task_id": "add", "dr')  # a kill in the middle of a line
    rest = Stopping(99)
    found = judge_once(path, PROBLEMS, samples, events=rest)
    assert rest.total == 4
    assert path.read_bytes().startswith(first)
    assert [each.sample for each in found] == samples
    assert [each.verdict.outcome for each in found] == ["passed", *["failed"] * 6]
    again = Stopping(99)
    assert judge_once(path, PROBLEMS, samples, events=again) == found
    assert again.total == 0


def kept(path: Path, sample: Sample, outcome: str, key: str = "k") -> None:
    with Verdicts(path) as verdicts:
        from gradatim.evaluation.verdicts import Judged

        verdicts.add(Judged(sample, Verdict(outcome, "why", 0.5)), key)  # type: ignore[arg-type]


def test_a_verdict_of_another_text_is_never_taken_for_this_one(tmp_path):
    kept(tmp_path / "v.jsonl", RIGHT, "passed", key="of another text")
    with pytest.raises(DataError, match=r"v\.jsonl.*draw 0 of add is of another sample.*--out"):
        judge_once(tmp_path / "v.jsonl", PROBLEMS, [RIGHT])


@pytest.mark.parametrize("change", [{"limits": 1.0}, {"problem": "tests"}, {"sample": "text"}])
def test_a_key_changes_with_all_that_a_verdict_depends_on(change):
    from dataclasses import replace

    from gradatim.evaluation.verdicts import key_of
    from gradatim.sandbox.limits import Limits

    problem, sample, limits = PROBLEMS["add"], RIGHT, None
    before = key_of(problem, sample, limits)
    assert before == key_of(problem, sample, limits)
    if "limits" in change:
        limits = Limits(cpu_seconds=1.0)
    problem = replace(problem, tests=problem.tests + "#") if "problem" in change else problem
    sample = replace(sample, text="x") if "sample" in change else sample
    assert key_of(problem, sample, limits) != before


def test_a_verdict_that_was_not_decided_is_asked_for_again(tmp_path):
    kept(tmp_path / "v.jsonl", RIGHT, "unjudged")
    with Verdicts(tmp_path / "v.jsonl") as verdicts:
        assert verdicts.find(RIGHT, "k") is None
    kept(tmp_path / "v.jsonl", RIGHT, "failed")
    with Verdicts(tmp_path / "v.jsonl") as verdicts:
        assert verdicts.find(RIGHT, "k") == Verdict("failed", "why", 0.5)


@pytest.mark.parametrize("content", [b'{"task_id": "a", "completion": "x"}\n', b"\xff\n", b"[1]\n"])
def test_a_file_that_holds_something_else_is_not_written_to(tmp_path, content):
    (tmp_path / "v.jsonl").write_bytes(content)
    with pytest.raises(DataError, match="other content than verdicts"):
        judge_once(tmp_path / "v.jsonl", PROBLEMS, [RIGHT])
    assert (tmp_path / "v.jsonl").read_bytes() == content


def test_two_processes_do_not_write_one_file(tmp_path):
    with (
        Verdicts(tmp_path / "v.jsonl"),
        pytest.raises(DataError, match="another process"),
        Verdicts(tmp_path / "v.jsonl"),
    ):
        pass


# The suite


@pytest.fixture(scope="module")
def coder() -> LoadedModel:
    """Knows by heart how ``add`` goes on, and that comments follow it."""
    texts = [f"{ADD['prompt']}{ANSWER}\n# done", "def twice(n):\n    return 2 * n\n"]
    tokenizer = character_tokenizer(texts)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=90, n_embd=48, n_layer=1, n_head=4,
        bos_token_id=1, eos_token_id=1, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).train()
    encoded = encode_table(tokenizer, pa.table({"prompt": pa.array([""] * 2, pa.large_string()), "answer": texts}))
    ids = torch.from_numpy(encoded.sample(0).astype("int64"))[None]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0)
    for _ in range(120):
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return LoadedModel(model.eval(), tokenizer)


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows))


TABLE = table(
    {"id": "x1", "prompt": ADD["prompt"], "answer": "", "tests": ADD["test"], "level": "1.1", "language": None},
    {
        "id": "x2",
        "prompt": ADD["prompt"],
        "answer": "",
        "tests": "assert add(1, 1) == 3\n",
        "level": "1.2",
        "language": None,
    },
    {"id": "x3", "prompt": "a = 1", "answer": "", "tests": None, "level": "1.1", "language": None},
)


@pytest.mark.usefixtures("walls")
def test_the_suite_writes_runs_and_counts(coder, tmp_path):
    lines(tmp_path / "p.jsonl", [{**ADD, "category": "sums"}, TWICE])
    suite = SUITES.get("functional")(problems=str(tmp_path / "p.jsonl"), max_new_tokens=40)
    result = suite(coder, table(), seed=0)
    assert result.counts["category"]["sums"].passed == 1
    assert result.counts["language"]["python"].total == result.counts["all"]["all"].total == 2
    told = summary(result)
    assert told["counts"] == {"passed": 1, "failed": 0, "timeout": 0, "invalid": 1, "total": 2}
    assert told["scores"]["pass@1"]["value"] == told["scores"]["accuracy"]["value"] == 0.5
    written = {each["id"]: each["attempt"] for each in result.examples}
    assert written["add"] == ANSWER  # up to the comment, where the function has ended
    assert written["Mbpp/7"] == ""  # its prompt has characters that this student does not know


@pytest.mark.usefixtures("walls")
def test_without_problems_the_samples_with_tests_are_asked(coder):
    result = SUITES.get("functional")(max_new_tokens=40)(coder, TABLE, seed=0)
    assert {name: (each.passed, each.total) for name, each in result.counts["level"].items()} == {
        "1.1": (1, 1),
        "1.2": (0, 1),
    }


def test_samples_without_any_tests_say_where_problems_come_from(coder):
    with pytest.raises(DataError, match=r"'tests'.*problems: FILE"):
        SUITES.get("functional")()(coder, TABLE.slice(2), seed=0)


@pytest.mark.usefixtures("walls")
def test_a_kept_evaluation_goes_on_and_writes_what_it_would_have_written(coder, tmp_path):
    options = {"protocol": "sampled", "num_samples": 3, "k": [1, 3], "temperature": 1.5, "max_new_tokens": 30}
    whole = SUITES.get("functional")(**options, keep=str(tmp_path / "a"))(coder, TABLE, seed=3)
    (folder,) = (tmp_path / "a").iterdir()
    samples = (folder / "samples.jsonl").read_bytes()
    assert [each.draw for each in read_samples(folder / "samples.jsonl").samples] == [0, 0, 1, 1, 2, 2]
    assert len(set(samples.splitlines())) == 6
    torn = tmp_path / "b" / folder.name
    torn.mkdir(parents=True)
    (torn / "samples.jsonl").write_bytes(samples[: len(samples) // 2])
    again = SUITES.get("functional")(**options, keep=str(tmp_path / "b"), batch=1)(coder, TABLE, seed=3)
    assert (torn / "samples.jsonl").read_bytes() == samples
    assert (again.counts, again.scores) == (whole.counts, whole.scores)


@pytest.mark.parametrize("kilobytes", [4, 8, 12])
def test_a_disk_that_fills_up_is_one_error_and_a_kept_evaluation_goes_on_when_there_is_room(coder, tmp_path, kilobytes):
    # The problem is one that needs no walls to be judged: it has a character that the model does not know.
    strange = table(
        *({"id": f"{n:0500d}", "prompt": "def add(\u00e4):\n", "tests": "assert add(1) == 1\n"} for n in range(9))
    )
    options = {"max_new_tokens": 4, "batch": 1}
    whole = SUITES.get("functional")(**options, keep=str(tmp_path / "a"))(coder, strange, seed=3)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        suite = SUITES.get("functional")(**options, keep=str(disk))
        with pytest.raises(StorageFailed, match="No space left") as told:
            suite(coder, strange, seed=3)
        assert "\n" not in str(told.value)
        subprocess.run(["mount", "-o", "remount,size=1m", str(disk)], check=True)
        assert suite(coder, strange, seed=3).counts == whole.counts
        for name in ("samples.jsonl", "verdicts.jsonl"):
            [there], [wanted] = disk.glob(f"*/{name}"), tmp_path.glob(f"a/*/{name}")
            assert there.read_bytes() == wanted.read_bytes()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_another_seed_or_temperature_is_kept_apart(coder, tmp_path, monkeypatch):
    from gradatim.evaluation import functional

    monkeypatch.setattr(
        functional, "judge_once", lambda path, problems, texts, **how: (_ for _ in ()).throw(Stopped(""))
    )
    for seed, temperature in ((0, 0.5), (1, 0.5), (0, 0.6), (0, 0.5)):
        options = {"protocol": "sampled", "temperature": temperature, "max_new_tokens": 3, "keep": str(tmp_path)}
        with pytest.raises(Stopped):
            SUITES.get("functional")(**options)(coder, TABLE, seed=seed)
    assert len(list(tmp_path.iterdir())) == 3


FAULTS = {
    "greedy draws one": ({"num_samples": 3, "k": [1, 2, 3]}, "greedy has one text"),
    "k beyond the samples": ({"k": [5], "protocol": "sampled", "num_samples": 4}, "k: every value must lie"),
    "no temperature": ({"temperature": 0}, "temperature: must be above 0"),
    "no time": ({"seconds": 0}, "seconds: must be above 0"),
    "no samples": ({"num_samples": 0}, "num_samples: must be 1 or more"),
}


@pytest.mark.parametrize(("options", "words"), FAULTS.values(), ids=FAULTS)
def test_options_that_do_not_fit_together_are_told(options, words):
    with pytest.raises(RecipeError, match=words):
        SUITES.get("functional")(**options)


def test_a_path_among_a_suites_options_is_no_path_in_the_run_folder():
    from gradatim.experiment.assemble import assemble
    from gradatim.experiment.recipe import load

    suites = "evaluate.suites=[{suite: functional, problems: ../here/p.jsonl, max_new_tokens: 9}]"
    (suite,) = assemble(load("smoke/baseline", [suites])).suites
    assert suite.label == "functional-problems.._here_p.jsonl-tokens9"


# Writing


def texts(student: Any, **how: Any) -> list[str]:
    questions = [Question("add", ADD["prompt"], 0, draw) for draw in range(4)]
    return [each.text for some in write(student, questions, Writing(tokens=20, **how)) for each in some]


def test_a_cold_student_writes_what_a_greedy_one_does_and_a_hot_one_does_not(coder):
    (greedy,) = set(texts(coder))
    assert set(texts(coder, temperature=0.01)) == {greedy}
    assert len(set(texts(coder, temperature=5.0))) == 4
    assert set(texts(coder)) == {greedy}  # the model is as it was


def test_a_chat_needs_a_template(coder):
    with pytest.raises(DataError, match="no chat template"):
        texts(coder, chat=True)


def test_a_chat_model_is_asked_through_its_template_and_gives_replies(coder):
    from copy import deepcopy

    student = LoadedModel(coder.model, deepcopy(coder.tokenizer))
    student.tokenizer.chat_template = "{{ messages[0]['content'] }}{% if add_generation_prompt %}    return{% endif %}"
    (some,) = write(student, [Question("add", ADD["prompt"], 0)], Writing(tokens=7, chat=True))
    assert (some[0].form, some[0].text) == ("reply", " a + b\n")


class Server(BaseHTTPRequestHandler):
    """Speaks as much of OpenAI's protocol as a client needs, and remembers what it was asked."""

    heard: ClassVar[list[tuple[str, dict[str, Any]]]] = []
    failures: ClassVar[list[int]] = []

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.heard.append((self.path, asked))
        status = self.failures.pop(0) if self.failures else 200
        text = f"{ANSWER}\ndef more(): pass"
        chat = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": f"```\n{text}\n```"}}
        plain = {"index": 0, "finish_reason": "length", "text": text}
        told = {
            "id": "1",
            "object": "x",
            "created": 0,
            "model": "m",
            "choices": [chat if "chat" in self.path else plain],
        }
        body = json.dumps(told if status == 200 else {"error": {"message": "no"}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: Any) -> None:
        """Tests are quiet."""


@pytest.fixture
def server(monkeypatch) -> Iterator[str]:
    pytest.importorskip("openai", reason="endpoints need the extra 'api'")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    Server.heard.clear()
    Server.failures.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}/v1#tiny"
        made.shutdown()


def test_an_endpoint_is_asked_for_each_draw_with_a_seed_of_its_own(server):
    questions = [Question("add", ADD["prompt"], 2, draw, stop=("\ndef", "\nif")) for draw in range(3)]
    found = [each for some in write(endpoint(server), questions, Writing(tokens=9, temperature=0.5)) for each in some]
    assert [(each.draw, each.form, each.text) for each in found] == [(d, "completion", ANSWER) for d in range(3)]
    assert {path for path, _ in Server.heard} == {"/v1/completions"}
    asked = [each for _, each in Server.heard]
    assert {(each["model"], each["max_tokens"], each["temperature"]) for each in asked} == {("tiny", 9, 0.5)}
    assert len({each["seed"] for each in asked}) == 3


def test_a_chat_endpoint_gives_replies(server):
    (some,) = write(endpoint(server), [Question("add", "Write add.", 0)], Writing(chat=True))
    assert some[0].form == "reply"
    assert Server.heard[0][1]["messages"] == [{"role": "user", "content": "Write add."}]


def test_a_server_that_stumbles_is_asked_again_and_one_that_fails_is_told(server):
    from dataclasses import replace

    Server.failures.extend([500])
    place = endpoint(server)
    assert place is not None
    list(write(replace(place, retries=1, first_wait=0.01), [Question("add", "", 0)], Writing()))
    Server.failures.extend([500])
    with pytest.raises(WorkFailed, match=r"does not answer.*500: no.*same command"):
        list(write(replace(place, retries=0), [Question("add", "", 0)], Writing()))
    Server.failures.extend([401])
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        list(write(replace(place, retries=0), [Question("add", "", 0)], Writing()))


def test_an_address_without_a_model_is_the_users_mistake():
    assert endpoint("runs/demo") is None
    with pytest.raises(UserError, match="#MODEL"):
        endpoint("http://localhost/v1")


def test_a_suite_that_looks_into_the_model_refuses_an_endpoint():
    import gradatim

    with pytest.raises(UserError, match="needs the model"):
        gradatim.evaluate("http://localhost/v1#m", TABLE, "token")


def test_a_problem_without_a_solution_has_no_reference():
    assert reference(PROBLEMS["add"]) == Sample("add", ANSWER)
    assert reference(CPP) is None
