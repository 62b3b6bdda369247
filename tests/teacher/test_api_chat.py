"""What becomes of requests to a server that behaves, misbehaves, or is not there."""

from __future__ import annotations

import email.utils
import json
import logging
import threading
import traceback

import pytest
from serving import completion, echo, fails, hangs_up, says, sends, waits

from gradatim.client.endpoint import MAX_STRING, Endpoint
from gradatim.client.messages import Budget, Cost, Rates
from gradatim.errors import BudgetReached, RecipeError, Stopped, StorageFailed, TeacherFailed, UserError
from gradatim.teacher import TEACHERS, Request
from gradatim.teacher.llm_teacher import ApiChat
from gradatim.teacher.reply_store import request_key

SECRET = "sk-very-secret-0123456789"


def texts(replies):
    return [reply and reply.text for reply in replies]


def test_replies_stand_in_the_order_of_the_requests_whatever_order_they_came_in(server, chat, ask):
    arrived = []
    server.actions = [waits(0.15), waits(0.05), echo, echo]
    replies = chat(concurrency=4).ask(ask("a", "b", "c", "d"), received=lambda index, reply: arrived.append(reply.text))
    assert texts(replies) == [
        "re: " + body["messages"][-1]["content"]
        for body in sorted(server.heard, key=lambda body: body["messages"][-1]["content"])
    ]
    assert sorted(arrived) == texts(replies)
    assert arrived != texts(replies)


def test_no_more_requests_are_under_way_than_wanted_and_all_of_these_are_used(server, chat, ask):
    server.otherwise = waits(0.05)
    chat(concurrency=3).ask(ask(*"abcdefghi"))
    assert server.most_at_once == 3


def test_a_request_says_model_messages_limit_temperature_and_a_seed_of_its_draw(server, chat):
    messages = (("system", "be brief"), ("user", "q"))
    chat(extra={"top_p": 0.5}).ask([Request(messages, draw, 0.3, 77) for draw in (0, 1)])
    first, second = server.heard
    assert first["messages"] == [{"role": role, "content": text} for role, text in messages]
    assert (first["model"], first["max_tokens"], first["temperature"], first["top_p"]) == ("m", 77, 0.3, 0.5)
    assert first["seed"] != second["seed"]
    chat(seeded=False, limit_name="max_completion_tokens").ask([Request(messages)])
    assert "seed" not in server.heard[2]
    assert server.heard[2]["max_completion_tokens"] == 512


SCHEMA = {
    "type": "object",
    "required": ["reason"],
    "oneOf": [{"required": ["cycles"]}, {"required": ["keep"]}],
    "properties": {
        "reason": {"type": "string", "minLength": 1},
        "name": {"type": "string", "pattern": "^[a-z]{1,9}$"},
        "keep": {"type": "boolean"},
        "cycles": {"type": "array", "items": {"type": "number"}},
    },
}


def test_a_request_with_a_schema_constrains_the_reply_and_each_alternative_is_a_complete_object(server, chat, ask):
    chat().ask(ask("q", schema=json.dumps(SCHEMA)) + ask("q"))
    constrained, plain = server.heard
    assert "response_format" not in plain
    assert constrained["response_format"]["type"] == "json_schema"
    first, second = constrained["response_format"]["json_schema"]["schema"]["anyOf"]
    assert (first["required"], second["required"]) == (["reason", "cycles"], ["reason", "keep"])
    assert (set(first["properties"]), set(second["properties"])) == (
        {"reason", "name", "cycles"},
        {"reason", "name", "keep"},
    )
    assert first["properties"]["reason"]["maxLength"] == MAX_STRING
    assert "maxLength" not in first["properties"]["name"]


def test_a_server_without_structured_outputs_gets_the_request_without_the_schema(server, chat, ask):
    server.actions = [fails(400, "response_format is not supported by this model")]
    api_chat = chat()
    notes = []
    replies = api_chat.ask(ask("q", schema=json.dumps(SCHEMA)), notes.append)
    assert texts(replies) == ["re: q"]
    assert ["response_format" in body for body in server.heard] == [True, False]
    assert any("'response_format'" in str(note) for note in notes)


def test_a_schema_has_a_stored_reply_of_its_own_and_changes_no_other_key():
    plain = Request((("user", "q"),))
    constrained = Request((("user", "q"),), schema=json.dumps(SCHEMA))
    assert request_key("m", plain) != request_key("m", constrained)
    assert plain.seed != constrained.seed
    # The key and the seed that the request had before there were schemas.
    assert request_key("m", plain) == "ae3cde48ec131f0cd15473877050c00a538b42985d1948bd29290cd176ccbea8"
    assert plain.seed == 1166726896


def test_tokens_and_cost_are_counted_as_the_server_tells_them(server, chat, ask):
    api_chat = chat(budget=Budget(prices=(100.0, 1000.0)))
    api_chat.ask(ask("a", "b"))
    facts = api_chat.facts
    assert (facts["requests"], facts["prompt_tokens"], facts["completion_tokens"]) == (2, 20, 10)
    assert facts["cost"] == pytest.approx(20 * 100e-6 + 10 * 1000e-6)
    assert (facts["retries"], facts["failed"], facts["without_usage"]) == (0, {}, 0)


def test_a_reply_is_text_that_can_be_sent_again_and_its_finish_is_a_word():
    endpoint = Endpoint("http://127.0.0.1/v1", "m", None)
    choice = {"message": {"content": "a \ud83d b"}, "finish_reason": "x" * 5000}
    body = json.dumps({"choices": [choice]}).encode()
    reply, _ = endpoint.read(body, "application/json", Request((("user", "a"),)))
    assert reply.text.encode() == b"a ? b"
    assert reply.finish == "x" * 40


def test_a_reply_without_usage_counts_as_the_most_it_can_have_been(server, chat, ask):
    body = json.loads(completion("x"))
    del body["usage"]
    server.actions = [sends(json.dumps(body).encode())]
    api_chat = chat()
    api_chat.ask(ask("abc", max_tokens=40))
    assert api_chat.facts["without_usage"] == 1
    assert api_chat.facts["completion_tokens"] == 40
    assert api_chat.facts["prompt_tokens"] >= 3


STUMBLES = {
    "429": fails(429),
    "500": fails(500),
    "503": fails(503),
    "connection": hangs_up,
    "broken reply": sends(b'{"choices": [{"message": {"cont'),
}


@pytest.mark.parametrize("cause", STUMBLES)
def test_what_stumbles_is_asked_again_and_counted_by_its_cause(cause, server, chat, ask):
    server.actions = [STUMBLES[cause], STUMBLES[cause]]
    api_chat = chat()
    assert texts(api_chat.ask(ask("a", "b"))) == ["re: a", "re: b"]
    assert api_chat.facts["retried"] == {cause: 2}
    assert api_chat.facts["retries"] == 2
    assert api_chat.facts["requests"] == 2


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b'{"choices": []}', b'{"error": {"message": "x"}}', b"\xff\xfe"])
def test_a_body_that_is_no_completion_is_asked_for_again(body, server, chat, ask):
    server.actions = [sends(body)]
    api_chat = chat()
    assert texts(api_chat.ask(ask("a"))) == ["re: a"]
    assert api_chat.facts["retried"] == {"broken reply": 1}


def test_a_slow_reply_is_a_timeout_and_is_asked_for_again(server, chat, ask):
    server.actions = [waits(0.6)]
    api_chat = chat(seconds=0.15)
    assert texts(api_chat.ask(ask("a"))) == ["re: a"]
    assert api_chat.facts["retried"] == {"timeout": 1}


@pytest.mark.parametrize(
    ("headers", "least"),
    [
        ({"Retry-After": "0.2"}, 0.2),
        ({"retry-after-ms": "150"}, 0.15),
        ({"Retry-After": "soon"}, 0.0),
        ({"Retry-After": email.utils.formatdate(0, usegmt=True)}, 0.0),
        ({}, 0.0),
    ],
)
def test_the_time_that_a_server_names_is_waited_for(headers, least, server, chat, ask):
    server.actions = [fails(429, headers=headers)]
    chat().ask(ask("a"))
    pause = server.times[1] - server.times[0]
    assert least <= pause < least + 0.15


def test_a_server_that_wants_quiet_gets_it_from_all_threads(server, chat, ask):
    server.actions = [fails(429, headers={"Retry-After": "0.2"})]
    server.otherwise = waits(0.02)
    chat(concurrency=2).ask(ask(*"abcdef"))
    asked_in_between = [moment for moment in server.times[2:] if 0.03 < moment - server.times[0] < 0.2]
    assert asked_in_between == []


def test_pauses_grow_when_the_server_names_none(server, chat, ask):
    server.actions = [echo, *[fails(500)] * 3]
    chat(retries=3, first_wait=0.04).ask(ask("a", "b"))
    gaps = [later - earlier for earlier, later in zip(server.times[1:], server.times[2:], strict=False)]
    # Each pause is between half and one and a half of 0.04, 0.08, 0.16 seconds.
    assert all(0.5 * pause <= gap for pause, gap in zip((0.04, 0.08, 0.16), gaps, strict=True))


def test_a_server_that_asks_to_come_back_much_later_is_told_and_not_waited_for(server, chat, ask):
    server.actions = [fails(429, headers={"Retry-After": "3600"})]
    with pytest.raises(TeacherFailed, match=r"wait of 3600 seconds.*same command"):
        chat().ask(ask("a"))


def test_a_server_that_is_not_there_is_told_soon(server, chat, ask):
    api_chat = chat(retries=50)
    api_chat.base_url = "http://127.0.0.1:9/v1"
    with pytest.raises(TeacherFailed, match=r"127\.0\.0\.1:9.*does not answer.*connection.*same command"):
        api_chat.ask(ask("a"))
    assert api_chat.facts["retries"] == 2


def test_a_server_that_goes_down_in_the_middle_is_told_with_what_is_kept(server, chat, ask):
    replies = []
    server.actions = [echo, echo]
    server.otherwise = fails(503)
    with pytest.raises(TeacherFailed, match=r"does not answer any more.*503.*\(2 just now\) are stored"):
        chat().ask(ask(*"abcd"), received=lambda index, reply: replies.append((index, reply.text)))
    assert replies == [(0, "re: a"), (1, "re: b")]


def test_one_request_that_always_fails_does_not_stop_the_others(server, chat, ask):
    def poisoned(handler, body):
        (fails(500) if body["messages"][-1]["content"] == "poison" else waits(0.01))(handler, body)

    server.otherwise = poisoned
    api_chat = chat(concurrency=2, first_wait=0.03)
    replies = api_chat.ask(ask("a", "poison", *"bcdefghijklmnopqrs"))
    assert replies[1] is None
    assert [reply for reply in replies if reply is None] == [None]
    assert api_chat.facts["failed"] == {"500": 1}


def test_a_request_that_the_server_does_not_take_has_no_reply_and_is_not_repeated(server, chat, ask):
    server.actions = [echo, fails(400, "too long"), echo]
    api_chat = chat()
    assert texts(api_chat.ask(ask("a", "b", "c"))) == ["re: a", None, "re: c"]
    assert api_chat.facts["failed"] == {"rejected": 1}
    assert len(server.heard) == 3


def test_a_server_that_takes_no_request_at_all_is_an_error(server, chat, ask):
    server.otherwise = fails(400, "unknown parameter seed")
    with pytest.raises(TeacherFailed, match=r"refuses every request.*unknown parameter seed"):
        chat().ask(ask("a", "b"))


@pytest.mark.parametrize("action", [fails(404, "no m"), fails(400, "no m", code="model_not_found")])
def test_a_wrong_model_name_is_the_users_mistake(action, server, chat, ask):
    server.otherwise = action
    with pytest.raises(UserError, match=r"no such model.*no m.*given: m"):
        chat().ask(ask(*"abc"))
    assert len(server.heard) == 1


def test_an_empty_account_is_told_and_not_asked_again(server, chat, ask):
    server.otherwise = fails(429, "you exceeded your quota", code="insufficient_quota")
    with pytest.raises(TeacherFailed, match=r"used up.*quota"):
        chat().ask(ask("a"))
    assert len(server.heard) == 1


@pytest.mark.parametrize(
    ("action", "text", "finish"),
    [
        (says(""), "", "empty"),
        (says(None), "", "empty"),
        (says(None, refusal="I cannot."), "I cannot.", "refusal"),
        (says("half an ans", "length"), "half an ans", "length"),
        (says("", "content_filter"), "", "content_filter"),
    ],
)
def test_what_was_paid_for_is_a_reply_even_when_it_is_of_no_use(action, text, finish, server, chat, ask):
    server.actions = [action]
    (reply,) = chat().ask(ask("a"))
    assert (reply.text, reply.finish) == (text, finish)
    assert len(server.heard) == 1


def test_the_key_is_sent_and_a_server_that_wants_none_gets_none(server, chat, ask):
    chat().ask(ask("a"))
    chat(key=None).ask(ask("a"))
    assert server.keys == [f"Bearer {SECRET}", "Bearer none"]


def test_without_a_key_nothing_is_asked(server, chat, ask, monkeypatch):
    monkeypatch.delenv("TEACHER_KEY")
    with pytest.raises(UserError, match=r"no key.*TEACHER_KEY.*export TEACHER_KEY"):
        chat().ask(ask("a"))
    assert server.heard == []


def test_a_key_where_its_name_should_be_is_refused_and_not_repeated():
    with pytest.raises(RecipeError, match="never the key") as error:
        ApiChat("https://host/v1", "m", key=SECRET)
    assert SECRET not in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize("address", [f"https://me:{SECRET}@host/v1", f"https://host/v1?key={SECRET}"])
def test_an_address_with_a_secret_is_refused_and_not_repeated(address):
    with pytest.raises(RecipeError, match="secrets") as error:
        ApiChat(address, "m")
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("address", ["host/v1", "ftp://host", "http:///v1", "", "http://[::1"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(RecipeError, match="address"):
        ApiChat(address, "m")


@pytest.mark.parametrize(
    "action",
    [
        fails(401, f"Incorrect API key provided: {SECRET}"),
        fails(400, f"bad {SECRET}"),
        fails(404, f"no model for {SECRET}"),
        fails(500, f"oops {SECRET}"),
        sends(f"<html>{SECRET}".encode()),
        hangs_up,
    ],
)
def test_the_key_is_in_no_error_no_traceback_no_log_and_no_fact(action, server, chat, ask, caplog):
    server.otherwise = action
    api_chat = chat()
    with caplog.at_level(logging.DEBUG), pytest.raises((UserError, TeacherFailed)) as error:
        api_chat.ask(ask("a"))
    output = "".join(traceback.format_exception(error.value)) + repr(error.value) + repr(api_chat) + str(api_chat.facts)
    assert SECRET not in output + caplog.text + str(vars(api_chat)) + api_chat.identity
    assert caplog.records  # the client does log


def test_a_refused_key_is_the_users_mistake_and_names_the_variable(server, chat, ask):
    server.otherwise = fails(401, "who are you")
    with pytest.raises(UserError, match=r"refuses the key.*who are you.*TEACHER_KEY"):
        chat(concurrency=2).ask(ask(*"abcdef"))
    assert len(server.heard) <= 2


def test_a_budget_in_tokens_is_never_overdrawn_and_says_how_to_go_on(server, chat, ask):
    replies = []
    api_chat = chat(budget=Budget(tokens=200), concurrency=4)
    # A request for one byte may take 1 + 32 + 50 tokens and takes 15: two fit at a time.
    with pytest.raises(BudgetReached, match=r"\d+ tokens spent; allowed: 200 tokens; try: the same command") as error:
        api_chat.ask(ask(*"abcdefghijklmnopqrs", max_tokens=50), received=lambda index, reply: replies.append(index))
    assert error.value.tokens == 15 * len(replies) == 15 * len(server.heard)
    assert 200 - 83 < error.value.tokens <= 200


def test_a_budget_in_money_stops_as_well(server, chat, ask):
    api_chat = chat(budget=Budget(money=0.05, prices=(1000.0, 1000.0)))
    with pytest.raises(BudgetReached, match=r"price of 0\.0\d+ spent; allowed: a price of 0\.05") as error:
        api_chat.ask(ask(*"abcdef", max_tokens=1))
    assert error.value.money == pytest.approx(0.015 * len(server.heard))
    assert 0 < error.value.money <= 0.05


def test_a_budget_in_money_without_prices_is_refused():
    with pytest.raises(RecipeError, match="needs prices"):
        TEACHERS.get("api")(base_url="http://h/v1", model="m", budget_money=1.0)


def test_what_fails_costs_nothing_of_the_budget(server, chat, ask):
    server.actions = [fails(500), fails(500)]
    api_chat = chat(budget=Budget(tokens=90))
    assert texts(api_chat.ask(ask("a", max_tokens=50))) == ["re: a"]


def test_requests_a_minute_are_spaced():
    now = [100.0]
    rates = Rates(requests_per_minute=30, clock=lambda: now[0])
    assert [rates.reserve(1) for _ in range(3)] == [0, 2, 4]
    now[0] += 5
    assert rates.reserve(1) == pytest.approx(1)
    now[0] += 100
    assert rates.reserve(1) == 0


def test_tokens_a_minute_are_spaced_and_what_was_not_used_is_given_back():
    rates = Rates(tokens_per_minute=600, clock=lambda: 0.0)
    assert [rates.reserve(100), rates.reserve(100)] == [0, 10]
    rates.give_back(50)
    assert rates.reserve(1) == pytest.approx(15)


def test_a_hold_moves_everybody():
    now = [0.0]
    rates = Rates(clock=lambda: now[0])
    rates.hold(3)
    assert rates.reserve(1) == rates.held() == 3
    now[0] = 4.0
    assert rates.held() == 0


def test_a_rate_is_kept_to_by_the_requests_themselves(server, chat, ask):
    chat(concurrency=4, rates=Rates(requests_per_minute=1200)).ask(ask(*"abcde"))
    assert server.times[-1] - server.times[0] >= 4 * 0.05 - 0.02


def test_a_request_waits_for_the_budget_that_others_may_give_back():
    budget = Budget(tokens=100)
    assert budget.reserve(Cost(0, 80), lambda: False)
    threading.Timer(0.05, budget.settle, (Cost(0, 80), Cost(0, 10))).start()
    assert budget.reserve(Cost(0, 80), lambda: False)
    budget.settle(Cost(0, 80), Cost(0, 30))
    with pytest.raises(BudgetReached, match="40 tokens spent"):
        budget.reserve(Cost(0, 80), lambda: False)


def test_what_is_under_way_still_arrives_when_the_user_stops(server, chat, ask):
    replies = []
    server.otherwise = waits(0.1)

    def listen(event):
        if event.kind == "advance" and event.done:
            raise Stopped("stopped")

    with pytest.raises(Stopped):
        chat(concurrency=2).ask(ask(*"abcdefgh"), listen, lambda index, reply: replies.append(reply.text))
    assert len(replies) == len(server.heard) < 8


def test_when_a_reply_cannot_be_kept_no_more_is_asked(server, chat, ask):
    def full(index, reply):
        raise StorageFailed("the disk is full")

    with pytest.raises(StorageFailed, match="disk is full"):
        chat().ask(ask(*"abcd"), received=full)
    assert len(server.heard) == 1


def test_a_limit_that_makes_no_sense_is_refused():
    for options in ({"concurrency": 0}, {"retries": -1}, {"seconds": 0.0}):
        with pytest.raises(RecipeError):
            ApiChat("http://h/v1", "m", **options)
    for rates in ({"requests_per_minute": 0}, {"tokens_per_minute": -1}):
        with pytest.raises(RecipeError, match="must be positive"):
            Rates(**rates)


def test_nothing_to_ask_needs_no_server_and_no_key(server, chat, monkeypatch):
    monkeypatch.delenv("TEACHER_KEY")
    assert chat().ask([]) == []
    assert server.heard == []
