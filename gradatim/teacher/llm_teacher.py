"""A teacher on top of any chat: prompts and strict parsing of the replies.

One request per row. An unreadable reply is requested once more, as another draw at ``temperature``, and then gives
None. Draw n of the teacher is the chat's draws 2n and 2n + 1, so that a second attempt never equals the next draw.
Answers and grades are first requested at temperature 0, everything else at ``temperature``.

A prompt that ends with the line ``# output`` is a question about a program's output; all others request a program in
the row's language (``language`` where the row has none), and the answer is that program alone. Neither correctness of
answers nor novelty of questions is checked here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..languages import Language, named
from ..languages.thinking import strip_thinking
from ..stage import Events, ignore_events
from ..table.text import divide
from .prompts import load_prompts, read_code, read_grade, read_output, read_program, read_question
from .teacher import Chat, Grade, Question, Reply, Request, check_grade

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["LanguageTeacher"]


Result = TypeVar("Result")
Row = Mapping[str, Any]
Parser = Callable[[Row, str], Result | None]
REFUSED = ("refusal", "content_filter", "empty")


class LanguageTeacher:
    """A teacher on top of ``chat``, with the package's prompts or those in the folder ``prompts``.

    ``max_tokens``: limit of a reply. ``RecipeError`` for a prompt file with faults.
    """

    def __init__(
        self,
        chat: Chat,
        prompts: str | Path | None = None,
        *,
        temperature: float = 0.7,
        max_tokens: int = 512,
        language: str = "python",
        events: Events = ignore_events,
    ) -> None:
        self.chat, self.temperature, self.max_tokens, self.events = chat, temperature, max_tokens, events
        self.language = named(language, "teacher.language").name
        self._prompts = load_prompts(prompts)
        self._counts: dict[str, Counter[str]] = {"asked": Counter(), "asked_again": Counter(), "unreadable": Counter()}

    @property
    def facts(self) -> dict[str, Any]:
        """The chat's facts, and counts by prompt: first requests (``asked``), second requests (``asked_again``), rows
        without a readable reply (``unreadable``)."""
        return {**self.chat.facts, **{name: dict(sorted(counts.items())) for name, counts in self._counts.items()}}

    def release(self) -> None:
        """Release the memory of the chat's model, where it has one."""
        getattr(self.chat, "release", lambda: None)()

    def answers(self, questions: pa.Table, *, draw: int = 0) -> list[str | None]:
        """Programs or printed lines, correct in the teacher's judgement."""
        return self._request("answer", _rows(questions), self._answer, draw, steady=True)

    def faults(self, samples: pa.Table, *, draw: int = 0) -> list[str | None]:
        """Answers with a plausible mistake; one equal to the correct answer counts as unreadable."""

        def parse(row: Row, text: str) -> str | None:
            answer = self._answer(row, text)
            return None if answer is None or answer.strip() == row["answer"].strip() else answer

        return self._request("fault", _rows(samples), parse, draw)

    def questions(self, parents: pa.Table, *, grade: str, draw: int = 0) -> list[Question | None]:
        """New questions by the prompt ``new-<grade>``, or ``new-output`` for questions about printed lines."""
        check_grade(grade)
        rows = [{**row, "grade": grade} for row in _rows(parents)]
        return self._request("new", rows, self._question, draw)

    def seeds(self, count: int, *, seed: int) -> list[Question]:
        """Questions by the prompt ``question``; fewer than ``count`` where replies are unreadable."""
        rows = [{"number": number + 1, "prompt": "", "language": self.language} for number in range(count)]
        questions = self._request("question", rows, self._question, seed)
        return [question for question in questions if question is not None]

    def rubric(self, samples: pa.Table, attempts: Sequence[str], *, draw: int = 0) -> list[Grade | None]:
        """Points out of 6, by the prompt ``rubric``."""
        rows = [{**row, "attempt": attempt} for row, attempt in zip(_rows(samples), attempts, strict=True)]
        return self._request("rubric", rows, lambda row, text: read_grade(text), draw, steady=True)

    def design(
        self, facts: str, *, form: str, reply: str = "", faults: Sequence[str] = (), draw: int = 0
    ) -> str | None:
        """One request by the prompt ``design``, or ``design-mend`` with faults; a second request is the caller's.

        A reply cut off at ``max_tokens`` is returned unchanged: its parser reports the missing end.
        """
        name = "design-mend" if faults else "design"
        bullets = "\n".join(f"- {fault}" for fault in faults)
        messages = self._prompts.messages(name, {"facts": facts, "form": form, "reply": reply, "faults": bullets})
        self._counts["asked_again" if faults else "asked"][name] += 1
        temperature = self.temperature if draw else 0.0
        request = Request(messages, 2 * draw + bool(faults), temperature, self.max_tokens)
        (answer,) = self.chat.ask([request], self.events)
        return None if answer is None or answer.finish in REFUSED else strip_thinking(answer.text)

    def _request(
        self, purpose: str, rows: Sequence[Row], parse: Parser[Result], draw: int, steady: bool = False
    ) -> list[Result | None]:
        """The parsed reply of each row; an unreadable one is requested once more."""
        names = [self._prompt_name(purpose, row) for row in rows]
        messages = [self._prompts.messages(name, self._values(row)) for name, row in zip(names, rows, strict=True)]
        results: list[Result | None] = [None] * len(rows)
        pending = list(range(len(rows)))
        for second in (False, True):
            if not pending:
                break
            self._counts["asked_again" if second else "asked"].update(names[index] for index in pending)
            temperature = 0.0 if steady and not second and not draw else self.temperature
            requests = [Request(messages[index], 2 * draw + second, temperature, self.max_tokens) for index in pending]
            unreadable = []
            for index, reply in zip(pending, self.chat.ask(requests, self.events), strict=True):
                if reply is None:
                    continue  # a final rejection applies to other draws too
                # A draft in the model's thinking is not its answer.
                text = strip_thinking(reply.text) if _is_complete(reply) else ""
                results[index] = parse(rows[index], text) if text.strip() else None
                if results[index] is None:
                    unreadable.append(index)
            pending = unreadable
        self._counts["unreadable"].update(name for name, result in zip(names, results, strict=True) if result is None)
        return results

    def _prompt_name(self, purpose: str, row: Row) -> str:
        about_output = _is_output_question(row)
        if purpose == "new":
            return "new-output" if about_output else f"new-{row['grade']}"
        return f"{purpose}-output" if about_output and purpose in ("answer", "fault") else purpose

    def _values(self, row: Row) -> dict[str, str]:
        language = self._language(row)
        values = {"question": row["prompt"], "language": language.title, "fence": language.name}
        optional = {name: row.get(name) for name in ("answer", "tests", "level", "attempt", "grade", "number")}
        return {**values, **{name: "none" if value is None else str(value) for name, value in optional.items()}}

    def _language(self, row: Row) -> Language:
        return named(row.get("language") or self.language, "teacher")

    def _answer(self, row: Row, text: str) -> str | None:
        return read_output(text) if _is_output_question(row) else read_code(self._language(row), text)

    def _question(self, row: Row, text: str) -> Question | None:
        """A question of the row's kind that does not repeat the row's."""
        language = self._language(row)
        if _is_output_question(row):
            prompt, tests = read_program(language, text), None
        else:
            prompt, tests = read_question(text) or (None, None)
        if prompt is None or prompt.split() == row["prompt"].split():
            return None
        return Question(prompt, None, row.get("level"), language.name, tests)


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    names = [name for name in ("prompt", "answer", "tests", "level", "language") if name in table.column_names]
    rows: list[dict[str, Any]] = table.select(names).to_pylist()
    return rows


def _is_output_question(row: Row) -> bool:
    return bool(row["prompt"]) and divide(row["prompt"]) == (row["prompt"], "")


def _is_complete(reply: Reply) -> bool:
    """Whether the reply has a text and is neither refused nor cut off."""
    return reply.finish not in (*REFUSED, "length") and bool(reply.text.strip())
