"""``gradatim check``: the stable shape, what it says of bad input, and that a stopped one goes on."""

from __future__ import annotations

import contextlib
import gzip
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gradatim.sandbox.command import sandbox_support
from gradatim.sandbox.inside.serializer import MAX_DEPTH
from gradatim.sandbox.supervise import descendants

ADD: dict[str, Any] = {
    "task_id": "add",
    "prompt": 'def add(a, b):\n    """The sum."""\n',
    "entry_point": "add",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
}
TWICE: dict[str, Any] = {"task_id": 7, "text": "Double it.", "test_list": ["assert twice(2) == 4"]}
RIGHT, WRONG = "    return a + b\n", "    return a\n"


@pytest.fixture
def walls() -> None:
    found = sandbox_support()
    if not found.available:
        pytest.skip(f"no walls: {found.reason}; {found.advice}")


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Two problems and five samples in the folder where the command runs."""
    write(tmp_path / "p.jsonl", [ADD, TWICE])
    rows = [
        {"task_id": "add", "completion": RIGHT},
        {"task_id": "add", "completion": WRONG},
        {"task_id": "add", "reply": "```python\ndef add(a, b):\n    return b + a\n```"},
        {"task_id": "add", "completion": "    while True: pass\n"},
        {"task_id": 7, "solution": "def twice(n):\n    return n + n\n"},
    ]
    write(tmp_path / "s.jsonl", rows)
    return tmp_path


COMMAND = ("check", "s.jsonl", "--problems", "p.jsonl", "--seconds", "0.5")


@pytest.mark.usefixtures("walls")
def test_json_has_the_documented_shape(gradatim, files):
    said = gradatim(*COMMAND, "--json")
    assert said.status == 0, said.err
    found = json.loads(said.out)
    assert found["counts"] == {"passed": 3, "failed": 1, "timeout": 1, "invalid": 0, "total": 5}
    assert set(found) == {"counts", "scores", "causes", "tasks"}
    assert set(found["scores"]) == {"pass@1"}
    score = found["scores"]["pass@1"]
    assert set(score) == {"value", "low", "high"}
    assert score["value"] == 0.75  # the mean of 2/4 and 1/1
    assert score["low"] < 0.75 < score["high"]


@pytest.mark.usefixtures("walls")
def test_several_k_are_told_with_what_they_leave_out(gradatim, files):
    said = gradatim(*COMMAND, "--k", "1,2", "--k", 4)
    assert said.status == 0
    assert [line.split()[:2] for line in said.out.splitlines() if line.strip().startswith("pass@")] == [
        ["pass@1", "75.0%"],
        ["pass@2", "83.3%"],
        ["pass@4", "100.0%"],
    ]
    assert "pass@2 excludes 1 problems with fewer samples: Mbpp/7" in said.err
    assert "3 passed, 1 failed, 1 timeout, 5 total" in said.out


@pytest.mark.usefixtures("walls")
def test_verdicts_are_kept_beside_the_samples_and_used_again(gradatim, files):
    first = gradatim(*COMMAND, "--json")
    kept = (files / "s.verdicts.jsonl").read_bytes()
    rows = [json.loads(line) for line in kept.splitlines()]
    assert [(row["task_id"], row["draw"], row["outcome"]) for row in rows] == [
        ("add", 0, "passed"),
        ("add", 1, "failed"),
        ("add", 2, "passed"),
        ("add", 3, "timeout"),
        ("7", 0, "passed"),
    ]
    assert gradatim(*COMMAND, "--json").out == first.out
    assert (files / "s.verdicts.jsonl").read_bytes() == kept
    with open(files / "s.jsonl", "a") as file:
        file.write(json.dumps({"task_id": "7", "completion": "twice = abs"}) + "\n")
    assert json.loads(gradatim(*COMMAND, "--json").out)["counts"]["failed"] == 2
    assert (files / "s.verdicts.jsonl").read_bytes().startswith(kept)


@pytest.mark.usefixtures("walls")
def test_what_cannot_be_used_is_named_and_counted(gradatim, tmp_path):
    write(tmp_path / "p.jsonl", [ADD, {**ADD, "task_id": "half", "test": None}, ADD])
    rows = [
        {"task_id": "add", "completion": RIGHT},
        {"task_id": "add", "completion": ""},
        {"task_id": "add", "reply": "```python\ndef add(a, b):"},
        {"task_id": "ad", "completion": RIGHT},
        {"task_id": "add"},
    ]
    path = write(tmp_path / "s.jsonl", rows)
    path.write_bytes(path.read_bytes() + b"\x00\xff\x1b[31mjunk\n")
    said = gradatim("check", "s.jsonl", "--problems", "p.jsonl", "--json")
    assert said.status == 0, said.err
    found = json.loads(said.out)
    assert found["counts"] == {"passed": 1, "failed": 0, "timeout": 0, "invalid": 5, "total": 6}
    assert found["scores"]["pass@1"]["value"] == 1 / 4  # the three answers that are none count
    for words in (
        "p.jsonl, row 2 (half): no field 'test'",
        "p.jsonl, row 3 (add): a second problem",
        "add, draw 3: invalid: there is no text: none of the fields completion, reply, solution",
        "2 of 4 samples have no text and count as not passed: 1 empty, 1 missing",
        "s.jsonl, line 6",
        "add, draw 1: invalid: the completion is empty",
        "add, draw 2: invalid: the reply's last block of code is not closed",
        "ad, draw 0: invalid: there is no usable problem with this id; did you mean 'add'?",
    ):
        assert words in said.err
    assert "\x1b" not in said.err
    assert (tmp_path / "s.verdicts.rejected.jsonl").read_text().count("\n") == 3


@pytest.mark.usefixtures("walls")
def test_one_right_sample_and_three_that_cannot_be_sent_back_are_a_quarter_at_the_first_run(gradatim, tmp_path):
    problem = {
        "task_id": "same",
        "prompt": "def same(x):\n",
        "entry_point": "same",
        "test": "def check(candidate):\n    x = [1]\n    assert candidate(candidate(x)) == [1] and x == [1]\n",
    }
    bodies = [
        "    return x\n",
        "    raise TypeError('an argument cannot be handed to the program')\n",
        f"    for _ in range({MAX_DEPTH - 1}): x = [x]\n    return x\n",
        "    x.append('x' * (31 << 20))\n    return [x, 'x' * (1 << 19)]\n",
    ]
    (tmp_path / "p.jsonl").write_text(json.dumps(problem) + "\n")
    rows = (json.dumps({"task_id": "same", "completion": body}) + "\n" for body in bodies)
    (tmp_path / "s.jsonl").write_text("".join(rows))
    said = gradatim("check", "s.jsonl", "--problems", "p.jsonl", "--json")
    assert said.status == 0, said.err
    found = json.loads(said.out)
    assert found["counts"] == {"passed": 1, "failed": 3, "timeout": 0, "invalid": 0, "total": 4}
    assert found["scores"]["pass@1"]["value"] == 0.25
    kept = (tmp_path / "s.verdicts.jsonl").read_bytes()
    assert gradatim("check", "s.jsonl", "--problems", "p.jsonl", "--json").out == said.out
    assert (tmp_path / "s.verdicts.jsonl").read_bytes() == kept


@pytest.mark.usefixtures("walls")
def test_problems_without_samples_are_counted_and_packed_files_are_read(gradatim, files):
    rows = [{"task_id": "add", "completion": RIGHT}]
    (files / "one.jsonl.gz").write_bytes(gzip.compress(json.dumps(rows[0]).encode()))
    (files / "p.json").write_text(json.dumps([ADD, TWICE]))
    said = gradatim("check", "one.jsonl.gz", "--problems", "p.json", "--out", "sub/kept.jsonl")
    assert said.status == 0
    assert "1 of 2 problems have no samples" in said.err
    assert (files / "sub" / "kept.jsonl").exists()


MISTAKES = {
    "no samples file": (["check", "gone.jsonl", "--problems", "p.jsonl"], ["gone.jsonl", "no such file"]),
    "no problems file": (["check", "s.jsonl", "--problems", "gone.jsonl"], ["gone.jsonl", "no such file"]),
    "an unknown name": (["check", "s.jsonl", "--problems", "humanevel"], ["did you mean 'humaneval'?"]),
    "too large a k": (["check", "s.jsonl", "--problems", "p.jsonl", "--k", "10"], ["pass@10", "at most 4"]),
    "a k that is none": (["check", "s.jsonl", "--problems", "p.jsonl", "--k", "all"], ["--k", "given: all"]),
    "problems for samples": (["check", "p.jsonl", "--problems", "p.jsonl"], ["no line is a sample", "completion"]),
    "samples for problems": (["check", "s.jsonl", "--problems", "s.jsonl"], ["no problem can be used"]),
    "other problems": (["check", "s.jsonl", "--problems", "other.jsonl"], ["no sample belongs to a problem"]),
    "a folder": (["check", ".", "--problems", "p.jsonl"], ["this is a folder"]),
    "the root": (["check", "/", "--problems", "p.jsonl"], ["this is a folder"]),
    "no time": (["check", "s.jsonl", "--problems", "p.jsonl", "--seconds", "0"], ["cpu_seconds"]),
    "verdicts into a device": (
        ["check", "s.jsonl", "--problems", "p.jsonl", "--out", "/dev/full"],
        ["this is a device"],
    ),
    "verdicts over samples": (
        ["check", "s.jsonl", "--problems", "p.jsonl", "--out", "s.jsonl"],
        ["read by the same command"],
    ),
}


@pytest.mark.parametrize(("arguments", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_and_changes_nothing(gradatim, files, arguments, words):
    write(files / "other.jsonl", [{**ADD, "task_id": "other"}])
    before = {path.name: path.read_bytes() for path in files.iterdir()}
    said = gradatim(*arguments)
    assert said.status == 2, said.err
    assert said.err.count("\n") == 1
    assert [word for word in words if word not in said.err] == []
    assert {path.name: path.read_bytes() for path in files.iterdir()} == before


@pytest.mark.usefixtures("walls")
def test_tests_that_are_no_program_fail_the_work_and_are_tried_again(gradatim, files):
    write(files / "p.jsonl", [{**ADD, "test": "def check(candidate:\n"}])
    said = gradatim(*COMMAND)
    assert said.status == 1
    assert "4 of 5 samples have no verdict" in said.err
    write(files / "p.jsonl", [ADD])
    assert gradatim(*COMMAND, "--out", "again.jsonl").status == 0


@pytest.mark.usefixtures("walls")
def test_without_walls_the_command_is_refused_with_the_fix(gradatim, files, monkeypatch):
    monkeypatch.setenv("PATH", str(files))  # no bwrap to be found
    sandbox_support.cache_clear()
    try:
        said = gradatim(*COMMAND)
    finally:
        monkeypatch.undo()
        sandbox_support.cache_clear()
    assert said.status == 2
    assert "bubblewrap" in said.err
    assert "--unsafe" in said.err
    assert not (files / "s.verdicts.jsonl").exists()


@pytest.mark.usefixtures("walls")
def test_a_model_is_evaluated_on_problems_and_goes_on_from_what_was_kept(gradatim, files, finished):
    write(files / "tiny.jsonl", [{**ADD, "task_id": f"t{n}", "prompt": f"a = {n}\nprint(a)\n"} for n in range(3)])
    command = ("evaluate", finished, "--suite", "functional", "--problems", "tiny.jsonl", "--keep", "kept", "--json")
    said = gradatim(*command, "--set", "max_new_tokens=5")
    assert said.status == 0, said.err
    found = json.loads(said.out)
    assert found["counts"]["total"] == 3
    assert found["counts"]["passed"] == 0
    assert set(found["scores"]) == {"accuracy", "pass@1"}
    (folder,) = (files / "kept").iterdir()
    samples = (folder / "samples.jsonl").read_bytes()
    assert samples.count(b"\n") == 3
    assert gradatim(*command, "--set", "max_new_tokens=5", "--texts", "texts.jsonl").out == said.out
    assert (folder / "samples.jsonl").read_bytes() == samples
    written = [json.loads(line)["completion"] for line in samples.splitlines()]
    texts = [json.loads(line) for line in (files / "texts.jsonl").read_text().splitlines()]
    assert [(row["id"], row["row"], row["attempt"]) for row in texts] == [(f"t{n}", n, written[n]) for n in range(3)]


@pytest.mark.usefixtures("walls")
@pytest.mark.parametrize("data", [(), ("--data", "tiny.txt")])
def test_an_evaluation_may_set_the_number_of_samples(gradatim, files, finished, data):
    write(files / "tiny.jsonl", [{**ADD, "prompt": "a = 1\nprint(a)\n"}])
    (files / "tiny.txt").write_text("a = 1\nprint(a)\n# output\n# 1\n")
    command = ("evaluate", finished, "--suite", "functional", "--problems", "tiny.jsonl", *data, "--json")
    result = gradatim(
        *command, "--protocol", "sampled", "--set", "num_samples=4", "--set", "k=[4]", "--set", "max_new_tokens=2"
    )
    assert result.status == 0, result.err
    assert json.loads(result.out)["counts"]["total"] == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--suite", "functional"], ["--data", "a dataset is needed"]),
        (["--suite", "functional", "--problems", "p.jsonl", "--set", "tokens"], ["--set", "KEY=VALUE"]),
        (["--suite", "functional", "--problems", "p.jsonl", "--set", "max_new_tokens=[1"], ["--set", "YAML"]),
        (
            ["--suite", "functional", "--problems", "p.jsonl", "--set", "max_new_token=1"],
            ["did you mean 'max_new_tokens'?"],
        ),
        (["--suite", "output", "--problems", "p.jsonl"], ["no option 'problems'"]),
        (
            ["--suite", "functional", "--problems", "p.jsonl", "--set", "seed=4"],
            ["no suite", "seed=4", "--seed NUMBER"],
        ),
        (["--data", "p.jsonl", "--set", "columns={a: b}"], ["no suite", "--columns OURS=THEIRS"]),
        (["--data", "p.jsonl", "--set", "events.x=1"], ["no suite", "events.x=1"]),
    ],
)
def test_an_evaluation_that_cannot_be_is_told_without_loading_the_model(gradatim, files, arguments, words):
    said = gradatim("evaluate", "nowhere", *arguments)
    assert said.status == 2
    assert said.err.count("\n") == 1
    assert [word for word in words if word not in said.err] == []


@pytest.mark.usefixtures("walls")
def test_ctrl_c_keeps_what_is_done_and_the_same_command_goes_on(files):
    rows = [{"task_id": "add", "completion": f"    for _ in range(10**6): pass\n    return -{n}\n"} for n in range(300)]
    write(files / "s.jsonl", [*rows, {"task_id": "add", "completion": RIGHT}])
    command = [sys.executable, "-m", "gradatim", "check", "s.jsonl", "--problems", "p.jsonl"]
    process = subprocess.Popen(command, cwd=files, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    path, deadline = files / "s.verdicts.jsonl", time.monotonic() + 60
    while not path.exists() or path.read_bytes().count(b"\n") < 5:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "resume with: gradatim check s.jsonl --problems p.jsonl" in err
    assert "Traceback" not in err
    first = path.read_bytes()
    assert 5 <= first.count(b"\n") < 301
    # Only the last samples are left to do, so that going on does not take long.
    lines = (files / "s.jsonl").read_text().splitlines(keepends=True)
    done = first.count(b"\n")
    (files / "s.jsonl").write_text("".join([*lines[:done], *lines[-1:]]))
    again = subprocess.run([*command, "--json"], cwd=files, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0, again.stderr
    assert path.read_bytes().startswith(first)
    assert json.loads(again.stdout)["counts"] == {
        "passed": 1, "failed": done, "timeout": 0, "invalid": 0, "total": done + 1,
    }  # fmt: skip


@pytest.mark.usefixtures("walls")
def test_ctrl_c_while_programs_run_leaves_no_process(files):
    row = ADD | {"task_id": "CPP/1", "prompt": "#include <unistd.h>\nint add(int a, int b) {\n", "declaration": ""}
    row["test"] = "int main() { return add(1, 2) != 3; }\n"
    del row["entry_point"]
    write(files / "p.jsonl", [ADD, row])
    sleeping = {"task_id": "CPP/1", "completion": "    write(2, 0, 0);\n    for (;;) sleep(9);\n}\n"}
    write(files / "s.jsonl", [{"task_id": "add", "completion": RIGHT}, sleeping, sleeping])
    command = [sys.executable, "-m", "gradatim", "check", "s.jsonl", "--problems", "p.jsonl", "--workers", "2"]
    process = subprocess.Popen(command, cwd=files, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60

    def below() -> dict[int, str]:
        found = {}
        for number in descendants(process.pid):
            with contextlib.suppress(OSError):
                found[number] = Path(f"/proc/{number}/comm").read_text().strip()
        return found

    while list(below().values()).count("program") < 2:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    running = set(below()) - {process.pid}
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in err) == (130, False)
    assert time.monotonic() - began < 15  # nobody waits for what sleeps
    assert [number for number in running if Path(f"/proc/{number}").exists()] == []
    assert (files / "s.verdicts.jsonl").read_bytes().count(b"\n") == 1


@pytest.mark.usefixtures("walls")
def test_a_disk_that_fills_up_is_one_clear_line_and_the_same_command_goes_on(gradatim, files):
    write(files / "s.jsonl", [{"task_id": "add", "completion": RIGHT if n % 2 else WRONG} for n in range(80)])
    disk = files / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        command = ("check", "s.jsonl", "--problems", "p.jsonl", "--out", "disk/v.jsonl", "--json")
        said = gradatim(*command)
        assert (said.status, said.out) == (1, "")
        assert "No space left on device" in said.err.splitlines()[0]
        assert "Traceback" not in said.err
        first = (disk / "v.jsonl").read_bytes()
        first = first[: first.rfind(b"\n") + 1]
        assert 20 < first.count(b"\n") < 80
        subprocess.run(["mount", "-o", "remount,size=1m", str(disk)], check=True)
        said = gradatim(*command)
        assert said.status == 0, said.err
        assert (disk / "v.jsonl").read_bytes().startswith(first)
        assert (disk / "v.jsonl").read_bytes().count(b"\n") == 80
        assert json.loads(said.out)["counts"]["passed"] == 40
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_check_is_light_until_programs_run():
    code = (
        "import sys\nfrom gradatim.cli.main import main\n"
        "main(['check', '--help'])\nmain(['check', 'a', '--problems', 'b'])\n"
        "heavy = ('torch', 'transformers', 'scipy', 'matplotlib')\n"
        "print([name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1] == "[]"


@pytest.mark.usefixtures("walls")
def test_lists_of_programs_are_checked_against_the_problems_in_order(gradatim, files):
    whole = ADD["prompt"]
    (files / "g.json").write_text(
        json.dumps([[whole + RIGHT, whole + WRONG, None], ["def twice(n):\n    return 2 * n\n"]])
    )
    said = gradatim("check", "g.json", "--problems", "p.jsonl", "--json")
    assert said.status == 0, said.err
    counts = json.loads(said.out)["counts"]
    assert (counts["passed"], counts["failed"] + counts["invalid"], counts["total"]) == (2, 2, 4)


REPLY = "Here you are:\n\n```python\ndef add(a, b):\n    return a + b\n```\n"


@pytest.mark.usefixtures("walls")
def test_chat_replies_in_the_field_of_completions_are_named_and_read_as_replies_on_request(gradatim, files):
    write(files / "s.jsonl", [{"task_id": "add", "completion": REPLY} for _ in range(3)])
    outcome = gradatim(*COMMAND, "--json")
    assert json.loads(outcome.out)["counts"]["passed"] == 0
    assert "3 of 3 completions have a fenced block" in outcome.err
    assert "--field completion=reply" in outcome.err
    assert "--force" in gradatim(*COMMAND, "--field", "completion=reply").err
    again = gradatim(*COMMAND, "--json", "--field", "completion=reply", "--force")
    assert json.loads(again.out)["counts"]["passed"] == 3
    assert "fenced block" not in again.err


@pytest.mark.usefixtures("walls")
@pytest.mark.parametrize("name", ["output", "generation", "code", "response", "my_field"])
def test_texts_under_another_name_are_read_with_a_note(gradatim, files, name):
    texts = [REPLY, "def add(a, b):\n    return a + b\n", None]
    write(files / "s.jsonl", [{"task_id": "add", name: text} for text in texts])
    option = ["--field", name] if name == "my_field" else []
    outcome = gradatim(*COMMAND, "--json", *option)
    assert outcome.status == 0, outcome.err
    counts = json.loads(outcome.out)["counts"]
    assert (counts["passed"], counts["invalid"]) == (2, 1)
    assert f"the text is read from the field '{name}'" in outcome.err
    assert "1 of 3 samples have no text" in outcome.err


def test_a_field_that_is_missing_is_one_line_that_names_the_option(gradatim, files):
    write(files / "s.jsonl", [{"task_id": "add", "my_field": RIGHT}])
    for option in ([], ["--field", "other"], ["--field", "my_field=code"]):
        outcome = gradatim(*COMMAND, *option)
        assert (outcome.status, outcome.err.count("\n")) == (2, 1)
        assert "--field" in outcome.err
        assert ("given: the fields task_id, my_field" in outcome.err) is ("my_field=code" not in option)
    assert not (files / "s.verdicts.jsonl").exists()


@pytest.mark.usefixtures("walls")
def test_failures_are_grouped_by_cause_and_each_task_has_its_results(gradatim, files):
    bodies = [*("    return nothing1\n", "    return nothing2\n", "    return a +\n"), WRONG, RIGHT]
    write(files / "s.jsonl", [{"task_id": "add", "completion": body} for body in bodies])
    outcome = gradatim(*COMMAND, "--json")
    found = json.loads(outcome.out)
    assert [(cause["cause"], cause["samples"], cause["task"]) for cause in found["causes"]] == [
        ("NameError", 2, "add"),
        ("SyntaxError", 1, "add"),
        ("AssertionError", 1, "add"),
    ]
    assert {name: (task["passed"], task["total"]) for name, task in found["tasks"].items()} == {"add": (1, 5)}
    outcomes = [sample["outcome"] for sample in found["tasks"]["add"]["samples"]]
    assert outcomes == ["failed", "failed", "invalid", "failed", "passed"]
    assert "NameError" in found["tasks"]["add"]["samples"][0]["reason"]
    shown = gradatim(*COMMAND).out
    assert "NameError" in shown.split("such as")[1]


NOTED = [
    {"task_id": "add", "completion": WRONG, "model": "a", "temperature": 0.2, "score": float("nan")},
    {"model": "b", "completion": RIGHT, "task_id": "add"},
    {"task_id": "add", "completion": WRONG},
]


def origins(entries: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(entry["outcome"], entry["line"], entry.get("fields")) for entry in entries]


@pytest.mark.usefixtures("walls")
def test_a_verdict_has_the_line_and_the_other_fields_of_its_sample(gradatim, files):
    write(files / "s.jsonl", ["", *NOTED])
    found = json.loads(gradatim(*COMMAND, "--json").out)["tasks"]["add"]["samples"]
    expected = [
        ("failed", 2, {"model": "a", "temperature": 0.2, "score": None}),
        ("passed", 3, {"model": "b"}),
        ("failed", 4, None),
    ]
    assert origins(found) == expected
    stored = [json.loads(line) for line in (files / "s.verdicts.jsonl").read_text().splitlines()]
    assert origins(stored) == expected
    assert found[0]["reason"].endswith("assert candidate(1, 2) == 3 · the last call returned 1")


@pytest.mark.usefixtures("walls")
def test_stored_verdicts_follow_a_file_whose_lines_have_moved(gradatim, files):
    write(files / "s.jsonl", NOTED)
    gradatim(*COMMAND)
    seconds = [json.loads(line)["cpu_seconds"] for line in (files / "s.verdicts.jsonl").read_text().splitlines()]
    write(files / "s.jsonl", ["", NOTED[0], NOTED[1] | {"model": "c"}, NOTED[2]])
    assert gradatim(*COMMAND).status == 0
    stored = [json.loads(line) for line in (files / "s.verdicts.jsonl").read_text().splitlines()]
    assert [(row["line"], row.get("fields", {}).get("model")) for row in stored] == [(2, "a"), (3, "c"), (4, None)]
    assert [row["cpu_seconds"] for row in stored] == seconds  # nothing was run again


@pytest.mark.usefixtures("walls")
def test_the_verdict_on_an_item_of_a_list_has_the_number_of_the_list(gradatim, files):
    (files / "g.json").write_text(json.dumps([["def add(a, b):\n    return a + b\n"] * 2, ["def twice(n): return 4"]]))
    tasks = json.loads(gradatim("check", "g.json", "--problems", "p.jsonl", "--json").out)["tasks"]
    assert [[sample["line"] for sample in task["samples"]] for task in tasks.values()] == [[1, 1], [2]]


@pytest.mark.usefixtures("walls")
def test_force_replaces_the_verdicts_and_a_refused_command_keeps_them(gradatim, files, monkeypatch):
    gradatim(*COMMAND)
    kept = (files / "s.verdicts.jsonl").read_bytes()
    assert gradatim(*COMMAND, "--force", "--seconds", "0").status == 2
    monkeypatch.setenv("PATH", str(files))  # no bwrap to be found
    sandbox_support.cache_clear()
    try:
        assert gradatim(*COMMAND, "--force").status == 2
    finally:
        monkeypatch.undo()
        sandbox_support.cache_clear()
    assert (files / "s.verdicts.jsonl").read_bytes() == kept
    monkeypatch.chdir(files)
    write(files / "s.jsonl", [{"task_id": "add", "completion": RIGHT}])
    assert gradatim(*COMMAND, "--force").status == 0
    (row,) = map(json.loads, (files / "s.verdicts.jsonl").read_text().splitlines())
    assert (row["task_id"], row["outcome"]) == ("add", "passed")
