"""How does a language model become a teacher?

Through prompts and a strict reading of the replies. Each thing asked for is one request; a reply that cannot be read
is asked for once more, as another draw at a temperature, and counts as nothing after that. A teacher's draw n is the
chat's draws 2n and 2n + 1, so that a second try is never taken for the next draw. What is asked for a judgement or a
right answer is asked first at temperature 0, what should differ each time at ``temperature``.

A question whose prompt ends with the line ``# output`` asks what a program prints; every other asks for a program in
the row's language (``language`` where the row tells none), and its answer is that program alone. Nothing here checks
whether an answer is right or a question new.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..stage import Events, ignore_events
from .prompts import load_prompts
from .teacher import Chat, Grade, Question, Reply, Request

if TYPE_CHECKING:
    import pyarrow as pa

    from ..languages import Language

__all__ = ["LanguageTeacher"]


Made = TypeVar("Made")
Row = Mapping[str, Any]
Reader = Callable[[Row, str], Made | None]
REFUSED = ("refusal", "content_filter", "empty")


class LanguageTeacher:
    """A teacher that asks ``chat``, with the package's prompts or those in the folder ``prompts``.

    ``max_tokens`` is the most that one reply may have. ``RecipeError`` when a prompt does not fit.
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
        from ..languages import named

        self.chat, self.temperature, self.max_tokens, self.events = chat, temperature, max_tokens, events
        self.language = named(language, "teacher.language").name
        self._prompts = load_prompts(prompts)
        self._counts: dict[str, Counter[str]] = {"asked": Counter(), "asked_again": Counter(), "unreadable": Counter()}

    @property
    def facts(self) -> dict[str, Any]:
        """The chat's, and per prompt how often it was ``asked``, ``asked_again``, and ``unreadable`` for good."""
        return {**self.chat.facts, **{name: dict(sorted(counts.items())) for name, counts in self._counts.items()}}

    def release(self) -> None:
        """Have the chat give back what it holds in memory, where it holds anything."""
        getattr(self.chat, "release", lambda: None)()

    def answers(self, questions: pa.Table, *, draw: int = 0) -> list[str | None]:
        """Programs, or printed lines, as the teacher believes them right."""
        return self._asked("answer", _rows(questions), self._answer, draw, steady=True)

    def faults(self, samples: pa.Table, *, draw: int = 0) -> list[str | None]:
        """Answers with a plausible mistake; one equal to the right answer cannot be read as a fault."""

        def read(row: Row, text: str) -> str | None:
            found = self._answer(row, text)
            return None if found is None or found.strip() == row["answer"].strip() else found

        return self._asked("fault", _rows(samples), read, draw)

    def questions(self, parents: pa.Table, *, grade: str, draw: int = 0) -> list[Question | None]:
        """Questions after the prompt ``new-<grade>``; those about printed lines after ``new-output``."""
        from .oracle import check_grade

        check_grade(grade)
        rows = [{**row, "grade": grade} for row in _rows(parents)]
        return self._asked("new", rows, self._question, draw)

    def seeds(self, count: int, *, seed: int) -> list[Question]:
        """Questions after the prompt ``question``; fewer than ``count`` where replies could not be read."""
        rows = [{"number": number + 1, "prompt": "", "language": self.language} for number in range(count)]
        return [each for each in self._asked("question", rows, self._question, seed) if each is not None]

    def rubric(self, samples: pa.Table, attempts: Sequence[str], *, draw: int = 0) -> list[Grade | None]:
        """Points out of 6, by the prompt ``rubric``."""
        from .prompts import read_grade

        rows = [{**row, "attempt": attempt} for row, attempt in zip(_rows(samples), attempts, strict=True)]
        return self._asked("rubric", rows, lambda row, text: read_grade(text), draw, steady=True)

    def design(
        self, facts: str, *, form: str, reply: str = "", faults: Sequence[str] = (), draw: int = 0
    ) -> str | None:
        """After the prompt ``design``, with faults after ``design-mend``. One request; who reads it asks again.

        A reply that was cut off at ``max_tokens`` is given as it is: what it lacks is a fault like others.
        """
        from ..languages.thinking import strip_thinking

        name = "design-mend" if faults else "design"
        listed = "\n".join(f"- {fault}" for fault in faults)
        messages = self._prompts.messages(name, {"facts": facts, "form": form, "reply": reply, "faults": listed})
        self._counts["asked_again" if faults else "asked"][name] += 1
        temperature = self.temperature if draw else 0.0
        request = Request(messages, 2 * draw + bool(faults), temperature, self.max_tokens)
        (found,) = self.chat.ask([request], self.events)
        return None if found is None or found.finish in REFUSED else strip_thinking(found.text)

    def _asked(
        self, purpose: str, rows: Sequence[Row], read: Reader[Made], draw: int, steady: bool = False
    ) -> list[Made | None]:
        """What ``read`` makes of the replies, a row each; what it cannot read is asked for once more."""
        from ..languages.thinking import strip_thinking

        names = [self._prompt_name(purpose, row) for row in rows]
        messages = [self._prompts.messages(name, self._values(row)) for name, row in zip(names, rows, strict=True)]
        made: list[Made | None] = [None] * len(rows)
        left = list(range(len(rows)))
        for second in (False, True):
            if not left:
                break
            self._counts["asked_again" if second else "asked"].update(names[place] for place in left)
            temperature = 0.0 if steady and not second and not draw else self.temperature
            requests = [Request(messages[place], 2 * draw + second, temperature, self.max_tokens) for place in left]
            unread = []
            for place, reply in zip(left, self.chat.ask(requests, self.events), strict=True):
                if reply is None:
                    continue  # refused for good: another draw of it would be as well
                # A draft in the model's thinking is not what it answers.
                text = strip_thinking(reply.text) if _whole(reply) else ""
                made[place] = read(rows[place], text) if text.strip() else None
                if made[place] is None:
                    unread.append(place)
            left = unread
        self._counts["unreadable"].update(name for name, each in zip(names, made, strict=True) if each is None)
        return made

    def _prompt_name(self, purpose: str, row: Row) -> str:
        printed = _asks_for_output(row)
        if purpose == "new":
            return "new-output" if printed else f"new-{row['grade']}"
        return f"{purpose}-output" if printed and purpose in ("answer", "fault") else purpose

    def _values(self, row: Row) -> dict[str, str]:
        language = self._language(row)
        given = {"question": row["prompt"], "language": language.title, "fence": language.name}
        named = {name: row.get(name) for name in ("answer", "tests", "level", "attempt", "grade", "number")}
        return {**given, **{name: "none" if value is None else str(value) for name, value in named.items()}}

    def _language(self, row: Row) -> Language:
        from ..languages import named

        return named(row.get("language") or self.language, "teacher")

    def _answer(self, row: Row, text: str) -> str | None:
        from .prompts import read_code, read_output

        return read_output(text) if _asks_for_output(row) else read_code(self._language(row), text)

    def _question(self, row: Row, text: str) -> Question | None:
        """A question of the row's kind that does not simply repeat it."""
        from .prompts import read_program, read_question

        language = self._language(row)
        if _asks_for_output(row):
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


def _asks_for_output(row: Row) -> bool:
    from ..table.text import divide

    return bool(row["prompt"]) and divide(row["prompt"]) == (row["prompt"], "")


def _whole(reply: Reply) -> bool:
    """Whether there is something to read: not refused, not empty, not cut off."""
    return reply.finish not in (*REFUSED, "length") and bool(reply.text.strip())
