"""A teacher on top of any chat (prompts, strict parsing of the replies), and the chats ``api`` and ``scripted``.

One request per row. An unreadable reply is requested once more, as another draw at ``temperature``, and then gives
None. Draw n of the teacher is the chat's draws 2n and 2n + 1, so that a second attempt never equals the next draw.
Answers and grades are first requested at temperature 0, everything else at ``temperature``.

A prompt that ends with the line ``# output`` is a question about a program's output; all others request a program in
the row's language (``language`` where the row has none), and the answer is that program alone. Neither correctness of
answers nor novelty of questions is checked here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import Field

from ..client.endpoint import (
    Concurrency,
    Endpoint,
    ExtraFields,
    KeyVariable,
    LimitName,
    Parameters,
    RequestBatch,
    RequestCounts,
    RequestTimeout,
    Retries,
    RetryPolicy,
    SendSeed,
    SendTemperature,
    StructuredOutputs,
    check_address,
    load_package,
    read_key,
)
from ..client.exchange import open_client
from ..client.messages import Budget, Cost, Rates, Received, Reply, Request, ignore_reply
from ..errors import DataError, RecipeError
from ..languages import Language, named
from ..languages.language import program_in
from ..languages.thinking import strip_thinking
from ..options import strict
from ..stage import Events, ignore_events
from ..table.rows import divide
from .prompts import load_prompts, read_code, read_grade, read_output, read_program, read_question
from .reply_store import Cached
from .teacher import Chat, Grade, Question, Teacher, check_grade

if TYPE_CHECKING:
    import pyarrow as pa


Result = TypeVar("Result")
Row = Mapping[str, Any]
Parser = Callable[[Row, str], Result | None]
PromptFolder = Annotated[
    str | Path | None, Field(description="Folder with prompt files; the package's prompts are used for missing ones.")
]
Temperature = Annotated[
    float,
    Field(
        description="Sampling temperature of new questions and rejected answers; correct answers and "
        "grades are first requested at 0."
    ),
]
MaxTokens = Annotated[int, Field(description="Maximum number of tokens of a reply.")]
QuestionLanguage = Annotated[str, Field(description="Programming language of questions whose samples have none.")]
ReplyCache = Annotated[
    str | Path | None, Field(description="Folder of the reply cache; null: that of the user, or `GRADATIM_CACHE`.")
]

CHECK = "Reply with the word OK."
"""The request that verifies address, key and model."""
REFUSED = ("refusal", "content_filter", "empty")


class LanguageTeacher(Teacher):
    """A teacher on top of ``chat``, with the package's prompts or those in the folder ``prompts``.

    ``max_tokens``: limit of a reply; one that is cut off there is never an answer. ``keep_replies``: right answers are
    whole replies instead of the programs in them. ``structured_outputs``: requests of designs carry their JSON Schema.
    ``RecipeError`` for a prompt file with faults.
    """

    can_judge = True
    chat: Chat

    def __init__(
        self,
        chat: Chat,
        prompts: str | Path | None = None,
        *,
        temperature: float = 0.7,
        max_tokens: int = 512,
        language: str = "python",
        keep_replies: bool = False,
        structured_outputs: bool = False,
        events: Events = ignore_events,
    ) -> None:
        self.chat, self.temperature, self.max_tokens, self.events = chat, temperature, max_tokens, events
        self.structured_outputs = structured_outputs
        self.language = named(language, "teacher.language").name
        self.keep_replies = keep_replies
        self._prompts = load_prompts(prompts)
        names = ("asked", "asked_again", "unreadable", "truncated")
        self._counts: dict[str, Counter[str]] = {name: Counter() for name in names}

    @property
    def facts(self) -> dict[str, Any]:
        """The chat's facts, and counts by prompt: first requests (``asked``), second requests (``asked_again``), rows
        without a readable reply (``unreadable``), replies cut off at ``max_tokens`` (``truncated``)."""
        return {**self.chat.facts, **{name: dict(sorted(counts.items())) for name, counts in self._counts.items()}}

    def check(self) -> None:
        """Send one short request, so that a wrong address, key or model shows before a run trains."""
        self.chat.check(Request((("user", CHECK),), 0, 0.0, self.max_tokens), self.events)

    def release(self) -> None:
        """Release the memory of the chat's model, where it has one."""
        self.chat.release()

    def answers(self, questions: pa.Table, *, draw: int = 0) -> list[str | None]:
        """Programs or printed lines, correct in the teacher's judgement."""

        def parse(row: Row, text: str) -> str | None:
            answer = self._answer(row, text)
            return text.strip() if answer and self.keep_replies and not _is_output_question(row) else answer

        return self._request("answer", _rows(questions), parse, draw, steady=True)

    def faults(self, samples: pa.Table, *, draw: int = 0) -> list[str | None]:
        """Answers with a plausible mistake; one equal to the correct answer counts as unreadable."""

        def parse(row: Row, text: str) -> str | None:
            answer = self._answer(row, text)
            right = row["answer"] if _is_output_question(row) else program_in(self._language(row), row["answer"])
            return None if answer is None or answer.strip() == (right or "").strip() else answer

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
        self,
        facts: str,
        *,
        form: str,
        reply: str = "",
        faults: Sequence[str] = (),
        prompt: str = "design",
        draw: int = 0,
    ) -> str | None:
        """One request by ``prompt``, or by ``design-mend`` with faults; a second request is the caller's.

        A reply cut off at ``max_tokens`` is returned unchanged: its parser reports the missing end.
        """
        name = "design-mend" if faults else prompt
        bullets = "\n".join(f"- {fault}" for fault in faults)
        messages = self._prompts.messages(name, {"facts": facts, "form": form, "reply": reply, "faults": bullets})
        self._counts["asked_again" if faults else "asked"][name] += 1
        temperature = self.temperature if draw else 0.0
        schema = form if self.structured_outputs else ""
        request = Request(messages, 2 * draw + bool(faults), temperature, self.max_tokens, schema)
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
                self._counts["truncated"][names[index]] += reply.finish == "length"
                # A draft in the model's thinking is not its answer.
                text = strip_thinking(reply.text) if _is_complete(reply) else ""
                results[index] = parse(rows[index], text) if text.strip() else None
                if results[index] is None:
                    unreadable.append(index)
            pending = unreadable
        self._counts["unreadable"].update(name for name, result in zip(names, results, strict=True) if result is None)
        self._counts["truncated"] += Counter()  # drops zeros
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
        if row.get("answer") and not _is_output_question(row):  # prompts have fences of their own
            optional["answer"] = program_in(language, row["answer"]) or row["answer"]
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


@dataclass(eq=False)
class ApiChat(Chat):
    """The model ``model`` at ``base_url`` (``https://HOST/v1``).

    ``key``: name of the environment variable that holds the key, None for a server without keys. ``seconds``: deadline
    of one request, including its reply. ``retries`` follow after ``first_wait`` seconds, twice that, four times …, at
    most ``longest_wait``. ``extra``: further fields of every request's body. ``seeded``: send a seed, different for
    different draws. ``limit_name``: the server's name for the token limit of a reply. ``send_temperature``: send the
    temperature. A parameter of these three that the server refuses by name is not sent again, with an event of kind
    ``note``.

    Requests are sent through the package ``openai`` (extra ``api``), concurrently, within ``Rates`` and a
    ``Budget``. Retried, after the server's ``retry-after`` or an exponential pause: 429, 5xx, a timeout, a lost
    connection, a body that is no chat completion. Without a reply, and counted: a request that the server rejects
    (another 4xx), and one whose retries are exhausted while others succeed. ``UserError``: no key, a refused key,
    an unknown model; ``TeacherFailed``: a server that fails for all requests; ``BudgetReached``: an exhausted
    budget. Requests in flight are completed first.

    A refusal or an empty text counts as a reply: it was paid for. The key is read from the recipe's environment
    variable at each call, and removed from every text of the server. Retries are in ``client.requests``, storage in
    ``reply_store``.
    """

    base_url: str
    model: str
    key: str | None = "OPENAI_API_KEY"
    concurrency: int = 8
    seconds: float = 120.0
    retries: int = 6
    first_wait: float = 1.0
    longest_wait: float = 120.0
    seeded: bool = True
    limit_name: LimitName = "max_tokens"
    send_temperature: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)
    rates: Rates = field(default_factory=Rates, repr=False)
    budget: Budget = field(default_factory=Budget, repr=False)

    def __post_init__(self) -> None:
        self.base_url = self.base_url.rstrip("/")
        check_address(self.base_url)
        if self.key is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", self.key):
            # The value may be the key itself, so the error does not repeat it.
            raise RecipeError(
                "the recipe names the environment variable that holds the key, never the key",
                where="teacher.key",
                allowed="a name such as OPENAI_API_KEY, or null for a server without keys",
            )
        if self.concurrency < 1 or self.retries < 0 or self.seconds <= 0:
            raise RecipeError(
                "these values cannot be used",
                where="teacher",
                given=f"concurrency {self.concurrency}, retries {self.retries}, seconds {self.seconds}",
                allowed="concurrency of 1 or more, retries of 0 or more, seconds above 0",
            )
        self._client_entry: tuple[int, Any] | None = None
        self._counts = RequestCounts()
        self._parameters = Parameters(self.limit_name, temperature=self.send_temperature, seed=self.seeded)

    @property
    def identity(self) -> str:
        """Address and model, and the further fields of every request."""
        extra = json.dumps(dict(self.extra), sort_keys=True) if self.extra else ""
        return f"{self.base_url}#{self.model}{extra}"

    @property
    def facts(self) -> dict[str, Any]:
        """Counts of this object. ``requests``: replies received, with their tokens and ``cost``; ``retries``, and by
        cause ``retried``; ``failed``: requests without a reply by cause; ``without_usage``: replies without the
        server's token counts, which count with their upper bound."""
        return self._counts.facts(self.budget.price)

    def cost(self, reply: Reply) -> float | None:
        """The price of a reply at the prices of the budget; None without prices."""
        return self.budget.price(Cost(reply.prompt_tokens, reply.completion_tokens))

    @property
    def limited(self) -> bool:
        """Whether there is a budget, so that ``begin`` has to be called with the earlier spending."""
        return self.budget.limited

    def begin(self, spent: Cost) -> None:
        """Count the spending before this process against the budget."""
        self.budget.begin(spent)

    def ask(
        self, requests: Sequence[Request], events: Events = ignore_events, received: Received = ignore_reply
    ) -> list[Reply | None]:
        """See ``Chat.ask`` and the module. When ``events`` raises, requests in flight are completed and ``received`` is
        called for their replies."""
        if not requests:
            return []
        batch = RequestBatch(
            self._endpoint(),
            requests,
            received,
            policy=RetryPolicy(self.retries, self.first_wait, self.longest_wait),
            rates=self.rates,
            budget=self.budget,
            counts=self._counts,
        )
        return batch.run(self.concurrency, events)

    def check(self, request: Request, events: Events = ignore_events) -> None:
        """See ``Chat.check``."""
        self.ask([request], events)

    def _endpoint(self) -> Endpoint:
        """The server for one call, with the current value of the key."""
        openai, secret = load_package(self.base_url), read_key(self.key, self.base_url)
        return Endpoint(
            self.base_url,
            self.model,
            self._client(openai, secret),
            self.key,
            secret,
            self.seconds,
            self._parameters,
            self.extra,
        )

    def _client(self, openai: Any, secret: str | None) -> Any:
        """The client of the package, cached by address and key, as its creation takes a tenth of a second."""
        digest = hash((self.base_url, secret))
        if self._client_entry is None or self._client_entry[0] != digest:
            self._client_entry = (digest, open_client(openai, self.base_url, secret, self.seconds))
        return self._client_entry[1]


@strict("teacher 'api'")
def api(
    *,
    base_url: Annotated[str, Field(description="Base URL of the endpoint, such as `https://HOST/v1`.")],
    model: Annotated[str, Field(description="Name of the model at the endpoint.")],
    key: KeyVariable = "OPENAI_API_KEY",
    prompts: PromptFolder = None,
    temperature: Temperature = 0.7,
    max_tokens: MaxTokens = 512,
    language: QuestionLanguage = "python",
    concurrency: Concurrency = 8,
    seconds: RequestTimeout = 120.0,
    retries: Retries = 6,
    requests_per_minute: Annotated[float | None, Field(description="Rate limit of requests; null: none.")] = None,
    tokens_per_minute: Annotated[float | None, Field(description="Rate limit of tokens; null: none.")] = None,
    budget_tokens: Annotated[
        int | None,
        Field(description="Maximum number of tokens of the run, interrupted executions included; null: no limit."),
    ] = None,
    budget_money: Annotated[
        float | None, Field(description="Maximum cost of the run in the currency of `prices`; null: no limit.")
    ] = None,
    prices: Annotated[
        tuple[float, float] | None,
        Field(description="Prices of a million prompt tokens and a million completion tokens."),
    ] = None,
    seeded: SendSeed = True,
    limit_name: LimitName = "max_tokens",
    send_temperature: SendTemperature = True,
    extra: ExtraFields = None,
    structured_outputs: StructuredOutputs = False,
    cache: ReplyCache = None,
    account: str = "",
    keep_replies: bool = False,
    events: Events = ignore_events,
) -> Teacher:
    """Any OpenAI-compatible endpoint, with rate limits and a budget"""
    chat = ApiChat(
        base_url,
        model,
        key,
        concurrency,
        seconds,
        retries,
        seeded=seeded,
        limit_name=limit_name,
        send_temperature=send_temperature,
        extra=extra or {},
        rates=Rates(requests_per_minute, tokens_per_minute),
        budget=Budget(budget_tokens, budget_money, prices),
    )
    cached = Cached(chat, cache, account=account)
    return LanguageTeacher(
        cached,
        prompts,
        temperature=temperature,
        max_tokens=max_tokens,
        language=language,
        keep_replies=keep_replies,
        structured_outputs=structured_outputs,
        events=events,
    )


Script = Sequence[str | None] | Mapping[str, str | None] | Callable[[Request], str | None]


class ScriptedChat(Chat):
    """Replies by ``script``; None in it is a final rejection. Every word counts as a token.

    ``failures``: an exception in place of the reply to the n-th request, counted from 0 over all calls; raised once.
    ``asked``: the requests with a reply or a rejection.

    Replies of ``ScriptedChat`` come from a list (in the order of the requests), from a mapping (the first key that
    occurs in the request's last message), or from a function of the request. Requests are counted, and ``failures``
    simulate an endpoint that goes down.
    """

    def __init__(self, script: Script, *, failures: Mapping[int, BaseException] | None = None, name: str = "") -> None:
        self._script = script
        self._failures = dict(failures or {})
        self._name = name
        self._next = 0
        self.asked: list[Request] = []
        self._counts = Counter[str]()

    @property
    def identity(self) -> str:
        """The name, or a hash of a script of data."""
        if self._name or callable(self._script):
            return f"scripted:{self._name}"
        entries = list(self._script.items()) if isinstance(self._script, Mapping) else list(self._script)
        return f"scripted:{hashlib.sha256(repr(entries).encode()).hexdigest()[:16]}"

    @property
    def facts(self) -> dict[str, Any]:
        """See ``Chat.facts``."""
        counts = {name: self._counts[name] for name in ("requests", "cached", "prompt_tokens", "completion_tokens")}
        failed = {"rejected": self._counts["rejected"]} if self._counts["rejected"] else {}
        return {**counts, "cost": 0.0, "retries": 0, "failed": failed}

    def cost(self, reply: Reply) -> float:
        """0: scripted replies are free."""
        return 0.0

    def ask(
        self, requests: Sequence[Request], events: Events = ignore_events, received: Received = ignore_reply
    ) -> list[Reply | None]:
        """The script's replies. ``DataError`` when a list is exhausted or no key of a mapping matches a request."""
        replies: list[Reply | None] = []
        for index, request in enumerate(requests):
            failure = self._failures.pop(self._next, None)
            if failure is not None:
                raise failure
            reply = self._reply(request)
            self._next += 1
            self.asked.append(request)
            if reply is not None:
                received(index, reply)
            replies.append(reply)
        return replies

    def _reply(self, request: Request) -> Reply | None:
        text = self._text(request)
        if text is None:
            self._counts["rejected"] += 1
            return None
        prompt_tokens = sum(len(message.split()) for _, message in request.messages)
        self._counts.update(requests=1, prompt_tokens=prompt_tokens, completion_tokens=len(text.split()))
        return Reply(text, "stop" if text.strip() else "empty", prompt_tokens, len(text.split()))

    def _text(self, request: Request) -> str | None:
        script = self._script
        if callable(script):
            return script(request)
        last = request.messages[-1][1]
        if isinstance(script, Mapping):
            match = next((key for key in script if key in last), None)
            if match is None:
                raise DataError("the script has no reply to this request", where="scripted", given=repr(last[:80]))
            return script[match]
        if self._next >= len(script):
            raise DataError(
                "the script has no further reply",
                where="scripted",
                given=f"{len(script)} replies, and request number {len(script) + 1}",
            )
        return script[self._next]


@strict("teacher 'scripted'")
def scripted(
    *,
    replies: Annotated[
        list[str | None] | dict[str, str | None],
        Field(description="Replies in the order of the requests, or a mapping from a text in a request to its reply."),
    ],
    prompts: PromptFolder = None,
    temperature: Temperature = 0.7,
    max_tokens: MaxTokens = 512,
    language: QuestionLanguage = "python",
    keep_replies: bool = False,
    events: Events = ignore_events,
) -> Teacher:
    """Replies written beforehand, for tests and documents"""
    return LanguageTeacher(
        ScriptedChat(replies),
        prompts,
        temperature=temperature,
        max_tokens=max_tokens,
        language=language,
        keep_replies=keep_replies,
        events=events,
    )
