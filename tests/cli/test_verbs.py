"""Each verb does its job, and its ``--json`` has the documented shape."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from small_models import base

from gradatim.api import arms_of, open_model
from gradatim.cli.environment import KINDS
from gradatim.experiment.recipe import load
from gradatim.experiment.study import _titles, plan_study
from gradatim.inference import decode
from gradatim.model import prompt_format


def test_generate_writes_the_same_bytes_for_the_same_seed_whatever_the_workers(gradatim, tmp_path):
    for name, workers in (("a.txt", 1), ("b.txt", 2)):
        assert gradatim("generate", name, "--count", 70, "--seed", 5, "--workers", workers).status == 0
    assert (tmp_path / "a.txt").read_bytes() == (tmp_path / "b.txt").read_bytes()


def test_generate_takes_levels_with_commas_and_counts_what_it_kept(gradatim, tmp_path):
    said = gradatim("generate", "a.parquet", "--count", 30, "--level", "1.1,2.1", "--level", "4.1", "--json")
    found = json.loads(said.out)
    assert {name: level["kept"] for name, level in found["levels"].items()} == {"1.1": 10, "2.1": 10, "4.1": 10}
    assert found["kept"] == pq.read_table(tmp_path / "a.parquet").num_rows == 30


def test_score_adds_a_column_for_each_metric(gradatim, tmp_path):
    gradatim("generate", "a.jsonl", "--count", 20)
    said = gradatim("score", "a.jsonl", "--out", "b.parquet", "--metric", "om,halstead", "--metric", "size", "--json")
    assert json.loads(said.out)["metrics"]["om"]["scored"] == 20
    assert {"om", "halstead", "size"} <= set(pq.read_table(tmp_path / "b.parquet").column_names)


def test_score_of_a_folder_names_what_cannot_be_parsed_and_the_hardest_files(gradatim, tmp_path):
    (tmp_path / "code").mkdir()
    for name, text in {"easy": "a = 1\n", "hard": "for i in b:\n if i or c:\n  d = i * 2\n", "torn": "if :\n"}.items():
        (tmp_path / "code" / f"{name}.py").write_text(text)
    said = gradatim("score", "code", "--hardest", 1, "--json")
    assert said.status == 0
    assert "torn.py" in said.err
    found = json.loads(said.out)
    assert (found["rows"], found["rejected"]) == (3, 1)
    assert [each["sample"] for each in found["hardest"]["om"]] == ["hard.py"]


def test_plan_counts_the_samples_that_the_run_learns(gradatim, finished):
    settings = ["data.count=300", "data.split.test=20", "data.split.validation=20", "budget.tokens=6000"]
    changes = [part for each in settings for part in ("--set", each)]
    planned = json.loads(gradatim("plan", "smoke/baseline", *changes, "--data", "--json").out)
    learnt = json.loads(next(finished.glob("cycle-00/stage-00-*/result.json")).read_text())
    assert planned["stages"][0]["bands"] == learnt["composition"]
    assert planned["stages"][0]["samples"] == learnt["samples"]
    assert planned["parameters"] == learnt["fitted"]["parameters"]
    without = json.loads(gradatim("plan", "smoke/baseline", *changes, "--no-data", "--json").out)
    assert without["parameters"] == learnt["fitted"]["parameters"]


def test_plan_leaves_nothing_behind(gradatim, tmp_path):
    assert gradatim("plan", "smoke/baseline", "--data").status == 0
    assert list(tmp_path.iterdir()) == []


def test_plan_without_data_shows_the_matrix_and_says_what_is_not_known(gradatim):
    said = gradatim("plan", "smoke/baseline", "--no-data", "--set", "schedule.name=hybrid")
    assert "50% hardest" in said.out
    assert "--data" in said.out
    planned = json.loads(gradatim("plan", "smoke/baseline", "--no-data", "--json").out)
    assert planned["data"] is None
    assert planned["stages"][0]["samples"] is None


def test_large_data_is_drawn_for_a_plan_only_when_asked(gradatim):
    said = gradatim("plan", "smoke/baseline", "--set", "data.count=50000000", "--json")
    assert json.loads(said.out)["data"] is None


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_lists_names_with_summaries(gradatim, kind):
    found = json.loads(gradatim("list", kind, "--json").out)
    assert found
    assert all(set(each) == {"name", "summary"} and each["summary"] for each in found)
    assert found[0]["name"] in gradatim("list", kind).out


def test_list_alone_names_the_kinds(gradatim):
    assert {each["name"] for each in json.loads(gradatim("list", "--json").out)} == set(KINDS)
    shown = gradatim("list").out
    assert "demo/baseline" in shown
    assert "smoke/" not in shown


def test_a_run_by_name_gets_a_folder_of_that_name_with_a_report(finished):
    assert finished.name == "smoke-baseline"
    assert "<html" in (finished / "report.html").read_text()


def test_the_same_run_again_trains_nothing_and_shows_the_result(gradatim, finished):
    files = sorted((finished / "cycle-00").rglob("*"))
    before = [file.stat().st_mtime_ns for file in files]
    said = gradatim("run", finished / "recipe.yaml", "--out", finished, "--json")
    found = json.loads(said.out)[0]
    assert [stage["stage"] for stage in found["stages"]] == ["all"]
    assert set(found["stages"][0]["results"]["output-greedy"]) == {"counts", "scores"}
    assert [file.stat().st_mtime_ns for file in files] == before


def test_evaluate_counts_every_sample_and_gives_an_interval(gradatim, finished):
    gradatim("generate", "t.parquet", "--count", 12, "--level", "1.1,2.1")
    found = json.loads(gradatim("evaluate", finished, "--data", "t.parquet", "--json").out)
    assert list(found["counts"]) == ["passed", "failed", "timeout", "invalid", "total"]
    assert found["counts"]["total"] == 12
    assert set(found["scores"]["accuracy"]) == {"value", "low", "high"}
    shown = gradatim("evaluate", finished, "--data", "t.parquet", "--limit", 5).out
    assert "accuracy" in shown
    assert "5 total" in shown


@pytest.mark.parametrize("suite", ["output", "line"])
def test_every_text_of_an_evaluation_can_be_written_to_a_file(gradatim, finished, suite):
    gradatim("generate", "t.parquet", "--count", 12, "--level", "1.1,2.1")
    command = ("evaluate", finished, "--data", "t.parquet", "--suite", suite, "--json")
    said = gradatim(*command, "--texts", "texts.jsonl")
    rows = [json.loads(line) for line in Path("texts.jsonl").read_text().splitlines()]
    counts = json.loads(said.out)["counts"]
    assert counts["total"] == len(rows)
    assert sum(row["passed"] for row in rows) == counts["passed"]
    table = pq.read_table("t.parquet")
    if suite == "output":
        assert [row["expected"] for row in rows] == table["answer"].to_pylist()
        opened, limit = open_model(finished), max(map(len, table["answer"].to_pylist())) + 9
        texts = decode.complete(opened.model, opened.tokenizer, [row["prompt"] for row in rows], limits=limit)
        assert [row["attempt"] for row in rows] == [text.text for text in texts]  # beyond the first wrong character
    assert {row["id"] for row in rows} <= set(table["id"].to_pylist())
    again = gradatim(*command, "--texts", "texts.jsonl")
    assert (again.status, again.err.count("\n")) == (2, 1)
    assert "--force" in again.err
    assert gradatim(*command, "--texts", "texts.jsonl", "--force").out == said.out
    assert gradatim(*command, "--texts", "t.parquet", "--force").status == 2
    Path("notes.jsonl").write_text('{"note": 1}\n')
    assert gradatim(*command, "--texts", "notes.jsonl", "--force").status == 2


def test_sample_runs_a_whole_program_and_says_what_is_true(gradatim, finished):
    found = json.loads(gradatim("sample", finished, "--prompt", "a = 3\nprint(a * a)", "--json").out)
    assert found[0]["truth"] == "# 9\n"
    assert found[0]["prompt"] == "a = 3\nprint(a * a)\n# output\n"
    assert found[0]["right"] is (found[0]["written"] == "# 9\n")


def test_sample_goes_on_with_a_prompt_that_cannot_be_run(gradatim, finished):
    found = json.loads(gradatim("sample", finished, "--prompt", "a = 3\npri", "--limit", 4, "--json").out)
    assert found[0]["truth"] is None
    assert len(found[0]["written"]) <= 4


def test_a_prompt_with_a_character_that_the_tokenizer_lacks_is_one_line(gradatim, finished):
    outcome = gradatim("sample", finished, "--prompt", "a = 3; print(a * ä)")
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert "lacks a character of the prompt; given: ';', 'ä'" in outcome.err


def test_the_prompt_of_the_help_example_is_answered(gradatim, finished):
    from gradatim.cli.models import SAMPLE_EXAMPLES

    (prompt,) = [shlex.split(example)[-1] for example in SAMPLE_EXAMPLES if "MODEL --prompt '" in example]
    outcome = gradatim("sample", finished, "--prompt", prompt, "--json")
    assert outcome.status == 0, outcome.err
    assert json.loads(outcome.out)[0]["truth"] == "# 12\n"


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    """A chat model that was not trained here, as most are: random weights, a template."""
    return base(tmp_path_factory.mktemp("chat") / "base")


def test_a_chat_model_s_answer_stands_apart_from_the_messages_before_it(gradatim, chat_model):
    said = gradatim("sample", chat_model, "--prompt", "list files", "--system", "Be short.", "--limit", 4)
    assert said.status == 0, said.err
    assert said.out.startswith("system:\nBe short.\n\nuser:\nlist files\n\nassistant:\n")
    assert "ground truth" not in said.out
    assert "ground truth" not in gradatim("sample", chat_model, "--prompt", "list files", "--limit", 4).out


def test_the_system_message_is_in_the_prompt_of_the_model(gradatim, chat_model):
    written = {
        system: json.loads(gradatim("sample", chat_model, "--prompt", "a", "--limit", 12, "--json", *options).out)
        for system, options in {"": [], "x": ["--system", "x"], "y": ["--system", "y" * 40]}.items()
    }
    opened = open_model(chat_model)
    for system, text in (("x", "x"), ("y", "y" * 40)):
        prompt = prompt_format.chat_formatter(opened.tokenizer, text)("a")
        (expected,) = decode.complete(opened.model, opened.tokenizer, [prompt], limits=12)
        assert written[system][0]["written"] == expected.text


def test_a_trained_chat_model_has_the_system_message_of_its_training_unless_another_is_given(gradatim, chat_model):
    shutil.copytree(chat_model, "trained")
    tokenizer = open_model("trained").tokenizer
    prompt_format.with_prompt_format(tokenizer, prompt_format.PromptFormat("chat", "House style."))
    tokenizer.save_pretrained("trained")
    said = gradatim("sample", "trained", "--prompt", "list files", "--limit", 2)
    assert said.out.startswith("system:\nHouse style.\n\nuser:\nlist files\n\nassistant:\n")
    said = gradatim("sample", "trained", "--prompt", "list files", "--limit", 2, "--system", "Be short.")
    assert said.out.startswith("system:\nBe short.\n\nuser:\n")


def test_a_system_message_for_plain_prompts_is_one_line(gradatim, finished):
    outcome = gradatim("sample", finished, "--prompt", "a = 1", "--system", "Be short.")
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert "--system: this model has no chat template" in outcome.err


def test_a_template_without_system_messages_is_named_by_the_option(gradatim, chat_model):
    shutil.copytree(chat_model, "strict")
    template = "{{ raise_exception('no system') if messages[0]['role'] == 'system' }}{{ messages[0]['content'] }}"
    Path("strict/chat_template.jinja").write_text(template)
    outcome = gradatim("sample", "strict", "--prompt", "a", "--system", "Be short.")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert outcome.err.startswith("gradatim: --system: ")


def test_only_a_prompt_that_asks_for_an_output_is_told_that_it_cannot_be_run(gradatim, finished):
    assert "no ground truth" in gradatim("sample", finished, "--prompt", "print(z)\n# output", "--limit", 4).out
    assert "no ground truth" not in gradatim("sample", finished, "--prompt", "a = 3\npri", "--limit", 4).out


@pytest.mark.parametrize("suite", ["line", "token"])
def test_an_evaluation_without_any_item_is_an_error(gradatim, tmp_path, finished, suite):
    prompt = "a" if suite == "token" else "a = 1"
    rows = [{"prompt": prompt, "answer": f"# {n}"} for n in range(5)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    outcome = gradatim("evaluate", finished, "--suite", suite, "--data", "pairs.jsonl")
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert "nothing was evaluated; given: 5 samples; try: --set text=all" in outcome.err
    if suite == "token":
        assert (
            gradatim("evaluate", finished, "--suite", suite, "--data", "pairs.jsonl", "--set", "text=all").status == 0
        )


def test_sample_draws_programs_of_its_own(gradatim, finished):
    found = json.loads(gradatim("sample", finished, "--count", 2, "--level", "1.1", "--json").out)
    assert len(found) == 2
    assert all(each["truth"].startswith("# ") for each in found)
    assert gradatim("sample", finished, "--count", 2).status == 0


def test_report_prints_markdown_without_writing_a_page(gradatim, finished, tmp_path):
    said = gradatim("report", finished, "--markdown")
    assert said.out.count("| ") > 5
    assert list(tmp_path.iterdir()) == []


def test_report_writes_one_page_for_several_runs_where_it_is_asked_to(gradatim, finished, tmp_path):
    assert gradatim("report", finished, "--out", "page.html").status == 0
    assert (tmp_path / "page.html").stat().st_size > 1000


def test_doctor_looks_at_what_training_needs(gradatim):
    said = gradatim("doctor", "--json")
    found = {each["name"]: each["state"] for each in json.loads(said.out)}
    assert found["torch"] == "good"
    assert {"processor", "threads", "bf16", "compiler", "disk"} <= set(found)
    assert said.status == 0
    assert "torch" in gradatim("doctor").out


def test_the_arms_of_a_study_are_named_by_stem_and_by_the_whole_name_where_stems_clash():
    assert arms_of(["smoke/baseline", "smoke/hybrid"]) == {"baseline": "smoke/baseline", "hybrid": "smoke/hybrid"}
    clash = ["smoke/baseline", "curriculum/baseline.yaml"]
    assert list(arms_of(clash)) == ["smoke-baseline", "curriculum-baseline"]


def test_arms_of_one_title_are_called_by_their_names():
    recipe = load("smoke/baseline")
    plan = plan_study({"plain": recipe, "same": recipe}, 1)
    assert _titles(plan) == {"plain": "plain", "same": "same"}
