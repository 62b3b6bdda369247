"""No received reply is paid for twice: not after a crash, not in another process, not beside one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from serving import echo, fails, says, waits

from gradatim.client.messages import Budget, Cost
from gradatim.errors import BudgetReached, StorageFailed, TeacherFailed, UserError
from gradatim.teacher import TEACHERS, Request
from gradatim.teacher.llm_teacher import ScriptedChat
from gradatim.teacher.reply_store import Cached, Store, line_of, paid_on, request_key

SECRET = "sk-very-secret-0123456789"


def words(request: Request) -> str:
    return f"{request.messages[-1][1]} {request.draw}"


def texts(replies):
    return [reply and reply.text for reply in replies]


def files(store: Path) -> list[Path]:
    return sorted(store.glob("1/??.jsonl"))


def test_what_was_received_is_not_asked_again_by_another_chat_of_the_same_identity(store, ask):
    first, second = ScriptedChat(words), ScriptedChat(words)
    once = Cached(first, store).ask(ask("a", "b"))
    again = Cached(second, store).ask(ask("b", "a", "c"))
    assert texts(again) == ["b 0", "a 0", "c 0"]
    assert once == [again[1], again[0]]
    assert [request.messages[-1][1] for request in second.asked] == ["c"]


@pytest.mark.parametrize(
    "other",
    [
        {"draw": 1},
        {"temperature": 0.5},
        {"max_tokens": 9},
        {"messages": (("system", "a"),)},
        {"messages": (("user", "a"), ("user", ""))},
    ],
)
def test_another_draw_or_request_is_asked_anew(other, store):
    chat = ScriptedChat(words)
    plain = {"messages": (("user", "a"),), "draw": 0, "temperature": 0.0, "max_tokens": 8}
    Cached(chat, store).ask([Request(**plain)])
    Cached(chat, store).ask([Request(**{**plain, **other})])
    assert len(chat.asked) == 2


def test_another_endpoint_is_asked_anew(store, ask):
    chat = ScriptedChat(words, name="other")
    Cached(ScriptedChat(words), store).ask(ask("a"))
    Cached(chat, store).ask(ask("a"))
    assert len(chat.asked) == 1
    assert request_key("x", ask("a")[0]) != request_key("y", ask("a")[0])


def test_equal_requests_of_one_call_are_asked_once(store, ask):
    chat = ScriptedChat(words)
    cached_chat = Cached(chat, store)
    assert texts(cached_chat.ask(ask("a", "b", "a", "a"))) == ["a 0", "b 0", "a 0", "a 0"]
    assert len(chat.asked) == 2
    facts = cached_chat.facts
    assert (facts["requests"], facts["cached"], facts["paid"]["requests"]) == (4, 2, 2)


def test_facts_tell_what_the_work_takes_and_what_was_paid_now(store, ask, server, chat):
    budget = {"prices": (100.0, 100.0)}
    one, two = (Cached(chat(budget=Budget(**budget)), store) for _ in range(2))
    one.ask(ask("a", "b"))
    two.ask(ask("a", "b", "c"))
    assert two.facts["cost"] == pytest.approx(3 * 15 * 100e-6)
    assert two.facts["paid"]["cost"] == pytest.approx(15 * 100e-6)
    assert (two.facts["requests"], two.facts["cached"], two.facts["prompt_tokens"]) == (3, 2, 30)
    assert json.loads(json.dumps(two.facts)) == two.facts


def test_a_reply_is_kept_when_it_arrives_and_not_when_all_have(store, ask):
    broken = ScriptedChat(words, failures={2: TeacherFailed("the endpoint is down")})
    with pytest.raises(TeacherFailed):
        Cached(broken, store).ask(ask(*"abcd"))
    after = ScriptedChat(words)
    assert texts(Cached(after, store).ask(ask(*"abcd"))) == ["a 0", "b 0", "c 0", "d 0"]
    assert [request.messages[-1][1] for request in after.asked] == ["c", "d"]


def test_what_the_endpoint_sent_is_kept_raw_without_the_key(store, ask, server, chat):
    server.actions = [says(f"your key is {SECRET}"), says(None, refusal="I cannot."), says("")]
    Cached(chat(), store).ask(ask("a", "b", "c"))
    again = Cached(chat(), store).ask(ask("a", "b", "c"))
    assert [(reply.text, reply.finish) for reply in again] == [
        ("your key is ***", "stop"),
        ("I cannot.", "refusal"),
        ("", "empty"),
    ]
    assert json.loads(again[1].raw)["choices"][0]["message"]["refusal"] == "I cannot."
    assert len(server.heard) == 3
    content = b"".join(path.read_bytes() for path in store.rglob("*") if path.is_file())
    assert b"I cannot." in content
    assert SECRET.encode() not in content


def test_a_request_refused_for_good_is_not_kept(store, ask):
    assert texts(Cached(ScriptedChat([None]), store).ask(ask("a"))) == [None]
    assert not files(store)


def test_nothing_received_is_lost_or_paid_twice_through_all_that_can_go_wrong(store, ask, server, chat):
    server.actions = [echo, fails(429), waits(0.3), echo, fails(500), echo, fails(401)]
    names = list("abcdefgh")
    for _ in range(3):  # the same command, until it is through
        with contextlib.suppress(UserError):
            replies = Cached(chat(seconds=0.15), store).ask(ask(*names))
    assert texts(replies) == [f"re: {name}" for name in names]
    # The 2nd stumbled twice, the 4th once, and one was refused with the key; nothing else was asked more than once.
    assert len(server.heard) == len(names) + 4


PROGRAM = """
import json, sys, urllib.request
from gradatim.teacher import Request
from gradatim.teacher.reply_store import Cached
from gradatim.teacher.llm_teacher import ScriptedChat

kind, url, folder, *names = sys.argv[1:]

def answer(request):  # a client that starts quicker than openai's
    body = json.dumps({"messages": [{"content": request.messages[0][1]}]}).encode()
    with urllib.request.urlopen(urllib.request.Request(url + "/chat/completions", body)) as reply:
        return json.load(reply)["choices"][0]["message"]["content"]

if kind == "api":
    from gradatim.teacher.llm_teacher import ApiChat
    chat = ApiChat(url, "m", key=None, concurrency=1, retries=0)
else:
    chat = ScriptedChat(answer)
chat = Cached(chat, folder)
replies = chat.ask([Request((("user", name),)) for name in names])
print(*[reply.text for reply in replies], chat.facts["paid"]["requests"], sep="|")
"""


def start(server, store, *names, kind: str = "quick") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, kind, server.url, str(store), *names]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(holds, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


@pytest.mark.parametrize("kind", ["quick", pytest.param("api", marks=pytest.mark.slow)])
def test_a_process_killed_between_two_replies_loses_none_and_none_is_asked_again(kind, server, store):
    names = list("abcdef")
    server.actions = [echo, echo, echo]
    server.otherwise = waits(60)
    killed = start(server, store, *names, kind=kind)
    until(lambda: len(server.heard) == 4)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert len(files(store)) > 0
    server.otherwise = echo
    after = start(server, store, *names, kind=kind)
    out, err = after.communicate(timeout=60)
    assert out.strip() == "|".join([*(f"re: {name}" for name in names), "3"]), err
    # Only the reply that was under way, and never came, was asked for twice.
    assert server.asked() == ["a", "b", "c", "d", "d", "e", "f"]


def test_two_processes_that_ask_the_same_at_once_pay_once(server, store):
    names = list("abcdefgh")
    server.otherwise = waits(0.05)
    both = [start(server, store, *order) for order in (names, names[::-1])]
    outputs = [process.communicate(timeout=60) for process in both]
    assert [out.split("|")[:-1] for out, _ in outputs] == [
        [f"re: {name}" for name in names],
        [f"re: {name}" for name in names[::-1]],
    ], outputs
    assert sorted(server.asked()) == names


def test_what_a_process_did_not_finish_is_asked_by_the_one_that_waited(server, store):
    server.otherwise = waits(60)
    first = start(server, store, "a", "b")
    until(lambda: len(server.heard) == 1)
    server.otherwise = echo
    second = start(server, store, "b", "a")
    time.sleep(0.3)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    out, err = second.communicate(timeout=60)
    assert out.strip() == "re: b|re: a|2", err


def test_threads_of_one_process_share_it_too(store, ask):
    slow = ScriptedChat(lambda request: (time.sleep(0.02), words(request))[1])
    chats = [Cached(slow, store) for _ in range(3)]
    results: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda chat=chat: results.append(texts(chat.ask(ask(*"abcd"))))) for chat in chats
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[f"{name} 0" for name in "abcd"]] * 3
    assert len(slow.asked) == 4


@pytest.mark.parametrize("harm", ["flipped", "cut", "rubbish", "emptied"])
def test_damage_loses_the_damaged_reply_only(harm, store, ask):
    Cached(ScriptedChat(words), store).ask(ask(*"abcdefghij"))
    path = files(store)[0]
    lost = path.read_bytes().count(b"\n")
    data = path.read_bytes()
    if harm == "flipped":
        path.write_bytes(data.replace(b'"text": "', b'"text": "!'))
    elif harm == "cut":
        path.write_bytes(data[: data.rindex(b"\n", 0, -1) + 1 if lost > 1 else 0] + data[-40:-1])
        lost = 1
    elif harm == "rubbish":
        path.write_bytes(b"\x00\xff\n\n{}\n" + data + b"\nhalf")
        lost = 0
    else:
        path.write_bytes(b"")
    chat = ScriptedChat(words)
    cached_chat = Cached(chat, store)
    assert texts(cached_chat.ask(ask(*"abcdefghij"))) == [f"{name} 0" for name in "abcdefghij"]
    assert len(chat.asked) == lost
    assert (cached_chat.facts["damaged"] > 0) == (harm in ("flipped", "rubbish"))  # a cut line may still be written
    # What was asked again is kept beside the damage.
    last = ScriptedChat(words)
    assert texts(Cached(last, store).ask(ask(*"abcdefghij"))) == [f"{name} 0" for name in "abcdefghij"]
    assert last.asked == []


def test_damage_that_comes_while_it_is_open_is_noticed(store, ask):
    chat = ScriptedChat(words)
    cached_chat = Cached(chat, store)
    cached_chat.ask(ask("a"))
    cached_chat.ask(ask("a"))
    files(store)[0].write_bytes(b"x" * files(store)[0].stat().st_size)
    assert texts(cached_chat.ask(ask("a"))) == ["a 0"]
    assert len(chat.asked) == 2


def test_a_store_that_cannot_be_written_stops_before_more_is_paid(store, ask):
    store.write_text("a file where a folder should be")
    chat = ScriptedChat(words)
    with pytest.raises(StorageFailed, match=r"replies cannot be stored.*GRADATIM_CACHE"):
        Cached(chat, store).ask(ask("a", "b"))
    assert chat.asked == []


def test_a_budget_is_the_accounts_over_all_its_processes(store, ask, server, chat):
    def run(account: str, tokens: int, *names: str) -> None:
        cached_chat = Cached(chat(budget=Budget(tokens=tokens)), store, account=account)
        cached_chat.ask(ask(*names, max_tokens=8))

    with pytest.raises(BudgetReached) as first:
        run("run-1", 100, *"abcdefghij")
    paid = len(server.heard)
    with pytest.raises(BudgetReached) as second:
        run("run-1", 100, *"abcdefghij")
    assert len(server.heard) == paid  # the same command with the same budget pays nothing more
    assert first.value.tokens == second.value.tokens == 15 * paid
    run("run-1", 1000, *"abcdefghij")  # with a larger one it goes on
    assert len(server.heard) == 10
    run("run-2", 100, *"abcdefghij")  # what others paid is free
    assert len(server.heard) == 10


@pytest.mark.parametrize("limited", [False, True])
def test_only_a_budget_has_all_that_was_ever_paid_read(limited, store, ask, chat, server):
    asked = ask("a", max_tokens=8)
    other = next(name for name in ("00", "01") if not request_key(chat().identity, asked[0]).startswith(name))
    (store / "1").mkdir(parents=True)
    (store / "1" / f"{other}.jsonl").write_bytes(line_of({"key": other * 32, "account": "run", **PAID}))
    cached_chat = Cached(chat(budget=Budget(tokens=1000 if limited else None)), store, account="run")
    cached_chat.ask(asked)
    assert (store / "1" / "accounts.json").exists() == limited
    cached_chat.chat.budget.tokens = 0  # so that the error contains the earlier spending
    with pytest.raises(BudgetReached) as reached:
        cached_chat.ask(ask("b", max_tokens=8))
    assert reached.value.tokens == 15 + 40 * limited


PAID = {"prompt_tokens": 30, "completion_tokens": 10}


def filled(store: Path, *accounts: str, at: int = 0) -> Store:
    """A store with one reply for each account, all of them in one file."""
    reply_store = Store(store)
    for number, account in enumerate(accounts, at):
        reply_store.put(f"aa{number:062x}", {"account": account, **PAID})
    return reply_store


def test_what_was_paid_is_summed_by_account_and_read_once(store):
    reply_store = filled(store, "one", "two", "", "one")
    assert (paid_on(reply_store, "one"), paid_on(reply_store, "two"), paid_on(reply_store, "new")) == (
        Cost(60, 20),
        Cost(30, 10),
        Cost(0, 0),
    )
    path = store / "1" / "aa.jsonl"
    path.write_bytes(b"x" * path.stat().st_size)  # who reads it again has lost what it said
    filled(store, "one", "new", at=4)
    assert (paid_on(reply_store, "one"), paid_on(reply_store, "new")) == (Cost(90, 30), Cost(30, 10))


@pytest.mark.parametrize("harm", ["removed", "damaged", "emptied"])
def test_sums_that_are_lost_are_made_anew(harm, store):
    reply_store = filled(store, "one", "one")
    paid_on(reply_store, "one")
    sums = store / "1" / "accounts.json"
    if harm == "removed":
        sums.unlink()
    else:
        sums.write_bytes(sums.read_bytes().replace(b"60", b"6") if harm == "damaged" else b"")
    assert paid_on(reply_store, "one") == Cost(60, 20)


def test_replies_that_were_taken_away_are_not_paid_any_more(store):
    reply_store = filled(store, "one", "one", "two")
    paid_on(reply_store, "one")
    path = store / "1" / "aa.jsonl"
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    assert (paid_on(reply_store, "one"), paid_on(reply_store, "two")) == (Cost(30, 10), Cost(0, 0))


def test_a_reply_that_is_being_written_counts_when_it_is_whole(store):
    reply_store = filled(store, "one", "one")
    path = store / "1" / "aa.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-9])
    assert paid_on(reply_store, "one") == Cost(30, 10)
    path.write_bytes(content)
    assert paid_on(reply_store, "one") == Cost(60, 20)


def test_sums_that_cannot_be_kept_are_right_all_the_same(store):
    reply_store = filled(store, "one")
    (store / "1" / "accounts.json").mkdir()
    assert paid_on(reply_store, "one") == paid_on(reply_store, "one") == Cost(30, 10)


def test_the_cache_is_where_the_environment_says(tmp_path, ask, monkeypatch):
    monkeypatch.setenv("GRADATIM_CACHE", str(tmp_path / "all"))
    teacher = TEACHERS.get("api")(base_url="http://h/v1", model="m")
    Cached(ScriptedChat(words)).ask(ask("a"))
    assert files(tmp_path / "all" / "teacher")
    assert isinstance(teacher.chat, Cached)


def test_a_store_of_many_entries_keeps_places_and_not_texts_in_memory(store):
    writer, reader = Store(store), Store(store)
    keys = [f"{number:064x}" for number in range(0, 400, 7)]
    for key in keys:
        writer.put(key, {"text": "x" * 5000})
    assert [(reader.get(key) or {}).get("key") for key in keys] == keys
    indices = [value for value in vars(reader).values() if isinstance(value, dict)]
    assert sum(len(repr(index)) for index in indices) < 100 * len(keys) + 4000


@pytest.mark.parametrize(
    "stored",
    [
        {"prompt_tokens": 10**3999},
        {"completion_tokens": 10**12},
        {"prompt_tokens": -1},
        {"prompt_tokens": None},
        {"text": None},
        {"raw": {"a": 1}},
    ],
)
def test_an_entry_of_an_older_version_that_cannot_be_used_is_asked_for_anew(stored, store, ask):
    (request,) = ask("a")
    key = request_key(ScriptedChat(words).identity, request)
    entry = {"text": "old", "finish": "stop", "prompt_tokens": 1, "completion_tokens": 1, "raw": "", **stored}
    Store(store).put(key, {**entry, "account": "run"})
    chat = ScriptedChat(words)
    cached_chat = Cached(chat, store, account="run")
    assert texts(cached_chat.ask([request])) == ["a 0"]
    assert cached_chat.facts["damaged"] == 1
    assert texts(Cached(chat, store).ask([request])) == ["a 0"]  # what was asked anew is kept
    assert len(chat.asked) == 1
    assert paid_on(Store(store), "run").tokens < 10**9


def test_replies_of_an_older_version_are_used(store, ask):
    (request,) = ask("a")
    entry = {"text": "old", "finish": "stop", "prompt_tokens": 1, "completion_tokens": 2, "raw": "{}"}
    Store(store).put(request_key(ScriptedChat(words).identity, request), {**entry, "identity": "x"})
    chat = ScriptedChat(words)
    assert texts(Cached(chat, store).ask([request])) == ["old"]
    assert chat.asked == []


def test_sums_of_an_older_version_with_impossible_figures_are_made_anew(store):
    reply_store = filled(store, "one")
    paid_on(reply_store, "one")
    sums = store / "1" / "accounts.json"
    sums.write_bytes(line_of({"read": reply_store.sizes(), "paid": {"one": [10**3999, 1]}}))
    assert paid_on(reply_store, "one") == Cost(30, 10)
