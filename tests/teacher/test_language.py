"""What a language model says is read strictly, asked for once more, and then counted as nothing."""

from __future__ import annotations

import shutil

import pytest
from serving import says

from gradatim.errors import DataError, RecipeError, UnknownPart, UserError
from gradatim.languages import LANGUAGES
from gradatim.table import make_table
from gradatim.teacher.llm_teacher import LanguageTeacher, ScriptedChat, scripted
from gradatim.teacher.prompts import (
    PACKAGED,
    PLACEHOLDERS,
    RUBRIC,
    load_prompts,
    read_code,
    read_grade,
    read_output,
    read_question,
)

pytest.importorskip("tree_sitter", reason="programs are parsed with the extra 'languages'")
PYTHON = LANGUAGES.get("python")
CODE = "def add(a, b):\n    return a + b\n"
WRONG = "def add(a, b):\n    return a - b\n"
SCORES = "".join(f"{part}: {1 if maximum == 1 else 2}\n" for part, maximum in RUBRIC.items())


def fenced(code: str, label: str = "python") -> str:
    return f"Here it is.\n\n```{label}\n{code}```\n"


def graded(scores: str, analysis: str = "It adds.") -> str:
    return f"<analysis>\n{analysis}\n</analysis>\n<scores>\n{scores}</scores>\n"


@pytest.fixture
def samples():
    columns = {"prompt": ["Write add {x}."], "answer": [CODE], "language": ["python"], "level": ["L1"]}
    return make_table({**columns, "tests": ["assert add(1, 2) == 3\n"]})


@pytest.fixture
def printing():
    return make_table({"prompt": ["print(3)\n# output\n"], "answer": ["# 3\n"], "language": ["python"]})


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (fenced(CODE), CODE),
        (fenced(CODE, "py"), CODE),
        (fenced(CODE, ""), CODE),
        (CODE, None),  # no fence
        (f"```python\n{CODE}", None),  # never closed
        (fenced("int add(int a, int b) { return a + b; }\n", "java"), None),  # another language
        (fenced("int add(int a, int b) { return a + b; }\n"), None),  # … that says it is this one
        (fenced("def add(a, b:\n"), None),
        (fenced(""), None),
        ("I'm sorry, but I can't help with that.", None),
        ("", None),
    ],
)
def test_code_is_read_from_a_closed_fence_of_its_language_that_parses(reply, code):
    assert read_code(PYTHON, reply) == code


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("```\n3\n-1\n```", "# 3\n# -1\n"),
        ("It prints:\n```text\n3\n```\n", "# 3\n"),
        ("# 3\n# 4\n", "# 3\n# 4\n"),
        ("```\n# 3\n```", "# 3\n"),
        ("3", None),
        ("It prints 3.", None),
        ("```\n3\n```\n```\n4\n```", None),
        ("```\n\n```", None),
        ("", None),
    ],
)
def test_printed_lines_are_read_from_the_only_fence_or_a_bare_answer(reply, answer):
    assert read_output(reply) == answer


def test_a_grade_has_every_part_once_within_its_range_after_an_analysis():
    grade = read_grade(graded(SCORES))
    assert (grade.points, grade.analysis, dict(grade.parts)) == (6, "It adds.", dict(RUBRIC))
    half = read_grade(graded(SCORES.replace("boundary checks: 1", "- **Boundary checks**: 0.5/1")))
    assert (half.points, half.parts["boundary checks"]) == (5.5, 0.5)


@pytest.mark.parametrize(
    "reply",
    [
        graded(SCORES, analysis=""),
        SCORES,
        f"<scores>\n{SCORES}</scores>\nIt adds.",
        graded(SCORES.replace("boundary checks: 1\n", "")),
        graded(SCORES + "boundary checks: 1\n"),
        graded(SCORES + "style: 1\n"),
        graded(SCORES.replace("boundary checks: 1", "boundary checks: 1.5")),
        graded(SCORES.replace("boundary checks: 1", "boundary checks: 0.3")),
        graded(SCORES.replace("boundary checks: 1", "boundary checks: -1")),
        graded(SCORES.replace("boundary checks: 1", "boundary checks: 1/5")),
        graded(SCORES.replace("boundary checks: 1", "boundary checks: good")),
        graded(SCORES) + graded(SCORES),
        "6/6",
        "",
    ],
)
def test_a_grade_in_another_form_is_no_grade(reply):
    assert read_grade(reply) is None


def test_a_question_stands_between_its_tags_and_its_tests_between_theirs():
    question = "<question>\nWrite f.\n</question>\n"
    assert read_question(question) == ("Write f.\n", None)
    tests = "assert f(1) == 2\n"
    assert read_question(f"{question}<tests>\n{tests}</tests>") == ("Write f.\n", tests)
    assert read_question(f"{question}<tests>\n```python\n{tests}```\n</tests>") == ("Write f.\n", tests)
    for broken in (
        "Write f.",
        question + question,
        "<question></question>",
        f"{question}<tests>\n{tests}",
        "<question>Write f.",
    ):
        assert read_question(broken) is None


def test_what_cannot_be_read_is_asked_for_once_more_as_another_draw(samples):
    chat = ScriptedChat(["no code", fenced(CODE)])
    teacher = LanguageTeacher(chat)
    assert teacher.answers(samples) == [CODE]
    assert [(request.draw, request.temperature) for request in chat.asked] == [(0, 0.0), (1, 0.7)]
    assert teacher.facts["asked_again"] == {"answer": 1}
    assert teacher.facts["unreadable"] == {}


def test_what_cannot_be_read_twice_is_none_and_counted(samples):
    chat = ScriptedChat(["no code", ""])
    teacher = LanguageTeacher(chat)
    assert teacher.answers(samples) == [None]
    assert teacher.facts["unreadable"] == {"answer": 1}
    assert len(chat.asked) == 2


def test_a_request_refused_for_good_is_not_asked_again(samples):
    chat = ScriptedChat([None])
    assert LanguageTeacher(chat).answers(samples) == [None]
    assert len(chat.asked) == 1


def test_a_second_try_is_never_the_next_draw(samples):
    chat = ScriptedChat(lambda request: "no code")
    teacher = LanguageTeacher(chat)
    teacher.answers(samples, draw=0)
    teacher.answers(samples, draw=1)
    assert [request.draw for request in chat.asked] == [0, 1, 2, 3]


def test_only_the_rows_that_could_not_be_read_are_asked_again_and_rows_keep_their_order():
    table = make_table({"prompt": ["p", "q", "r"], "answer": ["", "", ""], "language": ["python"] * 3})
    codes = [f"x = {number}\n" for number in range(3)]
    chat = ScriptedChat([fenced(codes[0]), "what?", fenced(codes[2]), fenced(codes[1])])
    assert LanguageTeacher(chat).answers(table) == codes


def test_a_fault_that_is_the_right_answer_is_no_fault(samples):
    assert LanguageTeacher(ScriptedChat([fenced(CODE), fenced(WRONG)])).faults(samples) == [WRONG]


def test_a_fault_that_is_the_program_of_a_fenced_right_answer_is_no_fault(samples):
    answer = f"```python\n{CODE}```"
    samples = samples.set_column(samples.schema.get_field_index("answer"), "answer", [[answer]])
    chat = ScriptedChat([fenced(CODE), fenced(WRONG)])
    assert LanguageTeacher(chat).faults(samples) == [WRONG]
    assert chat.asked[0].messages[-1][1].count("```") == 3  # the prompt's own, without one of the answer


@pytest.mark.parametrize(("keep_replies", "answer"), [(False, CODE), (True, fenced(CODE).strip())])
def test_right_answers_are_programs_or_whole_replies(samples, printing, keep_replies, answer):
    teacher = LanguageTeacher(ScriptedChat([fenced(CODE), "# 3\n"]), keep_replies=keep_replies)
    assert teacher.answers(samples) == [answer]
    assert teacher.answers(printing) == ["# 3\n"]


def test_a_reply_that_was_cut_off_is_counted_and_is_no_answer(samples, server, chat):
    server.actions = [says(fenced(CODE), "length"), says(fenced(WRONG), "length")]
    teacher = LanguageTeacher(chat())
    assert teacher.answers(samples) == [None]
    assert (teacher.facts["truncated"], teacher.facts["unreadable"]) == ({"answer": 2}, {"answer": 1})


def test_a_new_question_follows_the_prompt_of_its_grade_and_knows_level_and_language(samples):
    reply = "<question>\nWrite sub.\n</question>\n<tests>\nassert sub(3, 1) == 2\n</tests>"
    chat = ScriptedChat(lambda request: reply)
    teacher = LanguageTeacher(chat)
    prompts = {}
    for grade in ("easy", "middle", "hard"):
        (question,) = teacher.questions(samples, grade=grade)
        prompts[grade] = chat.asked[-1].messages[-1][1]
        assert (question.prompt, question.level, question.language) == ("Write sub.\n", "L1", "python")
        assert (question.answer, question.tests) == (None, "assert sub(3, 1) == 2\n")
    assert len(set(prompts.values())) == 3
    assert all("Write add {x}." in text and CODE.strip() in text for text in prompts.values())
    with pytest.raises(UserError, match="did you mean 'easy'"):
        teacher.questions(samples, grade="esy")


def test_a_new_question_that_repeats_its_parent_is_not_taken(samples):
    chat = ScriptedChat(lambda request: "<question>Write  add {x}.</question>")
    assert LanguageTeacher(chat).questions(samples, grade="hard") == [None]


def test_questions_about_printed_lines_are_asked_and_answered_in_their_own_form(printing):
    program = "a = 4\nprint(a)\n"
    chat = ScriptedChat(["```\n3\n```", "```\n5\n```", fenced(program)])
    teacher = LanguageTeacher(chat)
    assert teacher.answers(printing) == ["# 3\n"]
    assert teacher.faults(printing) == ["# 5\n"]
    (question,) = teacher.questions(printing, grade="hard")
    assert (question.prompt, question.answer) == (program + "# output\n", None)
    assert set(teacher.facts["asked"]) == {"answer-output", "fault-output", "new-output"}


def test_the_rubric_is_asked_with_question_attempt_and_right_answer(samples):
    chat = ScriptedChat([graded(SCORES)])
    (grade,) = LanguageTeacher(chat).rubric(samples, [WRONG])
    assert grade.points == 6
    text = chat.asked[0].messages[-1][1]
    assert WRONG.strip() in text
    assert CODE.strip() in text


def test_seeds_are_asked_for_by_number_and_unreadable_ones_are_left_out():
    chat = ScriptedChat({"number 2 ": "no", "number": "<question>Write f.</question>"})
    seeds = LanguageTeacher(chat, language="c++").seeds(3, seed=4)
    assert [(seed.prompt, seed.language) for seed in seeds] == [("Write f.\n", "cpp")] * 2
    assert {request.draw for request in chat.asked} == {8, 9}


def test_an_unknown_language_is_the_users_mistake():
    with pytest.raises(UnknownPart, match="pyton"):
        LanguageTeacher(ScriptedChat([]), language="pyton")


def test_every_packaged_prompt_fits_and_says_what_the_system_is():
    prompts = load_prompts()
    assert {path.stem for path in PACKAGED.glob("*.md")} == set(PLACEHOLDERS)
    for name, (needed, optional) in PLACEHOLDERS.items():
        values = {word: f"<<{word}>>" for word in (*needed, *optional)}
        (system, _), (user, text) = prompts.messages(name, values)
        assert (system, user) == ("system", "user")
        assert all(f"<<{word}>>" in text for word in needed)


def test_a_folder_replaces_the_prompts_it_has(tmp_path, samples):
    (tmp_path / "answer.md").write_text("Solve {question} with { braces } and {Words}.")
    (tmp_path / "README.md").write_text("mine")
    chat = ScriptedChat([fenced(CODE), fenced(WRONG)])
    teacher = LanguageTeacher(chat, tmp_path)
    teacher.answers(samples)
    teacher.faults(samples)
    assert chat.asked[0].messages == (("user", "Solve Write add {x}. with { braces } and {Words}."),)
    assert chat.asked[1].messages[0][0] == "system"


def test_all_faults_of_a_folder_of_prompts_are_told_at_once(tmp_path):
    for path in PACKAGED.glob("*.md"):
        shutil.copy(path, tmp_path)
    (tmp_path / "answer.md").write_text("Solve {qestion}.")
    (tmp_path / "fault.md").write_text("Only a system {question} {answer}\n---\n")
    (tmp_path / "rubrik.md").write_text("x")
    with pytest.raises(RecipeError) as error:
        load_prompts(tmp_path)
    text = str(error.value)
    for fault in (
        "{question} is missing",
        "no placeholder {qestion}",
        "no message for the user",
        "did you mean 'rubric'",
    ):
        assert fault in text
    with pytest.raises(DataError, match="no such folder"):
        load_prompts(tmp_path / "nowhere")


def test_the_script_of_a_recipe_answers_by_words_of_the_request(samples):
    teacher = scripted(replies={"review": graded(SCORES), "learner would": fenced(WRONG), "Solve": fenced(CODE)})
    assert teacher.answers(samples) == [CODE]
    assert teacher.faults(samples) == [WRONG]


def test_a_script_that_is_used_up_or_has_no_word_is_told(samples):
    for replies in ([], {"nothing": "x"}):
        with pytest.raises(DataError, match="script"):
            scripted(replies=replies).answers(samples)


OTHER = "def add(a, b):\n    return a * b\n"
DRAFTS = {
    "think": "<think>\nMaybe:\n{draft}\nNo, wrong.\n</think>\n\n{answer}",
    "only the closing tag": "Maybe:\n{draft}\nNo, wrong.\n</think>\n\n{answer}",
    "thinking": "<thinking>\n{draft}\n</thinking>\n{answer}",
    "reasoning": "<reasoning>{draft}</reasoning>\n{answer}",
    "harmony": "<|channel|>analysis<|message|>\n{draft}\n<|end|><|start|>assistant<|channel|>final<|message|>{answer}",
    "two thoughts": "<think>\n{draft}\n</think>\n<think>\n{draft}\n</think>\n{answer}",
}


@pytest.mark.parametrize("form", DRAFTS)
def test_a_draft_in_the_thinking_is_never_the_answer(form, samples, printing):
    def reply(draft: str, answer: str) -> str:
        return DRAFTS[form].format(draft=draft, answer=answer)

    def teacher(*replies: str) -> LanguageTeacher:
        return LanguageTeacher(ScriptedChat(list(replies)))

    assert teacher(reply(fenced(OTHER), fenced(CODE))).answers(samples) == [CODE]
    assert teacher(reply(fenced(OTHER), fenced(WRONG))).faults(samples) == [WRONG]
    assert teacher(reply("```\n4\n```", "```\n3\n```")).answers(printing) == ["# 3\n"]
    (question,) = teacher(reply("<question>\nA draft.\n</question>", "<question>\nWrite sub.\n</question>")).questions(
        samples, grade="hard"
    )
    assert question.prompt == "Write sub.\n"
    low = SCORES.replace(": 2", ": 0")
    (grade,) = teacher(reply(graded(low), graded(SCORES))).rubric(samples, [CODE])
    assert grade == read_grade(graded(SCORES))
    assert teacher(reply('{"reason": "draft"}', '{"reason": "answer"}')).design("f", form="{}").strip() == (
        '{"reason": "answer"}'
    )


@pytest.mark.parametrize("thinking", ["<think>\n{draft}\n", "<think>\n{draft}\n</think>\n", "<think>{draft}</think>"])
def test_a_reply_of_nothing_but_thinking_is_no_answer(thinking, samples):
    chat = ScriptedChat([thinking.format(draft=fenced(CODE))] * 2)
    teacher = LanguageTeacher(chat)
    assert teacher.answers(samples) == [None]
    assert teacher.facts["unreadable"] == {"answer": 1}
    assert len(chat.asked) == 2
