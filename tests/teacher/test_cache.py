"""No received reply is paid for twice: not after a crash, not in another process, not beside one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import sqlite3
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
from gradatim.teacher.reply_store import Cached, ReplyStore, request_key

SECRET = "sk-very-secret-0123456789"


def words(request: Request) -> str:
    return f"{request.messages[-1][1]} {request.draw}"


def texts(replies):
    return [reply and reply.text for reply in replies]


def execute(store: Path, statement: str, *values: object) -> list[tuple[object, ...]]:
    """Rows of a statement on the file of ``store``, none without a file."""
    if not (store / "replies.sqlite").exists():
        return []
    with contextlib.closing(sqlite3.connect(store / "replies.sqlite", timeout=60)) as connection, connection:
        return connection.execute(statement, values).fetchall()


def stored(store: Path) -> int:
    """The number of replies stored."""
    query = "SELECT COUNT(*) FROM entries JOIN namespaces ON id = namespace WHERE name = 'replies'"
    return sum(int(str(count)) for (count,) in execute(store, query))


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
    assert not stored(store)


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
    assert stored(store) == 3
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


DAMAGE = 'UPDATE entries SET value = replace(CAST(value AS TEXT), \'"text": "\', \'"text": "!\')'


def test_damage_loses_the_damaged_reply_only(store, ask):
    first = Cached(ScriptedChat(words), store)
    first.ask(ask(*"abcdefghij"))
    key = request_key(first.identity, ask("c")[0])
    execute(store, f"{DAMAGE} WHERE key = ?", key.encode())
    chat = ScriptedChat(words)
    cached_chat = Cached(chat, store)
    assert texts(cached_chat.ask(ask(*"abcdefghij"))) == [f"{name} 0" for name in "abcdefghij"]
    assert [request.messages[-1][1] for request in chat.asked] == ["c"]
    assert cached_chat.facts["damaged"] > 0
    # What was asked again replaces the damage.
    last = ScriptedChat(words)
    assert texts(Cached(last, store).ask(ask(*"abcdefghij"))) == [f"{name} 0" for name in "abcdefghij"]
    assert last.asked == []


def test_damage_that_comes_while_it_is_open_is_noticed(store, ask):
    chat = ScriptedChat(words)
    cached_chat = Cached(chat, store)
    cached_chat.ask(ask("a"))
    cached_chat.ask(ask("a"))
    execute(store, DAMAGE)
    assert texts(cached_chat.ask(ask("a"))) == ["a 0"]
    assert len(chat.asked) == 2


def test_a_damaged_file_is_one_line_and_nothing_is_paid(store, ask):
    store.mkdir()
    (store / "replies.sqlite").write_bytes(b"rubbish" * 1000)
    chat = ScriptedChat(words)
    with pytest.raises(StorageFailed, match=r"replies.sqlite: .*this file is damaged.*move it away"):
        Cached(chat, store).ask(ask("a"))
    assert chat.asked == []


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


PAID = {"prompt_tokens": 30, "completion_tokens": 10}


def filled(store: Path, *accounts: str, at: int = 0) -> ReplyStore:
    """A store with one reply for each account."""
    reply_store = ReplyStore(store)
    for number, account in enumerate(accounts, at):
        reply_store.put(f"aa{number:062x}", {"account": account, **PAID})
    return reply_store


def test_what_was_paid_is_summed_by_account(store):
    reply_store = filled(store, "one", "two", "", "one")
    for each in (reply_store, ReplyStore(store)):
        assert [each.paid_on(name) for name in ("one", "two", "new")] == [Cost(60, 20), Cost(30, 10), Cost(0, 0)]
    filled(store, "one", "new", at=4)
    assert (reply_store.paid_on("one"), reply_store.paid_on("new")) == (Cost(90, 30), Cost(30, 10))


def test_a_reply_that_is_not_stored_is_not_added_to_its_account(store):
    reply_store = filled(store, "one")
    execute(store, "CREATE TRIGGER full BEFORE INSERT ON entries BEGIN SELECT RAISE(ABORT, 'no space'); END")
    with pytest.raises(StorageFailed, match="no space"):
        filled(store, "one", at=1)
    execute(store, "DROP TRIGGER full")
    assert reply_store.paid_on("one") == Cost(30, 10)


def test_the_cache_is_where_the_environment_says(tmp_path, ask, monkeypatch):
    monkeypatch.setenv("GRADATIM_CACHE", str(tmp_path / "all"))
    teacher = TEACHERS.get("api")(base_url="http://h/v1", model="m")
    Cached(ScriptedChat(words)).ask(ask("a"))
    assert stored(tmp_path / "all" / "teacher") == 1
    assert isinstance(teacher.chat, Cached)


CACHE_OF_AN_EARLIER_VERSION = Path(__file__).parents[1] / "data" / "cache-before-sqlite" / "teacher"
"""Written by the version before the SQLite file: "a" and "b" paid on "run-1", "c" on "run-2"; one and three tokens."""


def earlier_reply(request: Request) -> str:
    return f"reply to {request.messages[-1][1]}"


@pytest.fixture
def earlier(store: Path) -> Path:
    return Path(shutil.copytree(CACHE_OF_AN_EARLIER_VERSION, store))


def line_of(entry: dict[str, object]) -> bytes:
    """A line of an earlier version's file."""
    text = json.dumps(entry).encode()
    return hashlib.sha256(text).hexdigest().encode() + b" " + text + b"\n"


def test_replies_and_sums_of_an_earlier_version_are_carried_over_once(earlier, ask):
    for _ in range(2):
        chat = ScriptedChat(words)
        assert texts(Cached(chat, earlier).ask(ask(*"abc", max_tokens=8))) == [f"reply to {name}" for name in "abc"]
        assert chat.asked == []
        assert [ReplyStore(earlier).paid_on(name) for name in ("run-1", "run-2")] == [Cost(2, 6), Cost(1, 3)]
    for path in (earlier / "1").glob("*"):
        assert path.read_bytes() == (CACHE_OF_AN_EARLIER_VERSION / "1" / path.name).read_bytes()
        path.unlink()
    assert texts(Cached(chat, earlier).ask(ask("a", max_tokens=8))) == ["reply to a"]


def test_replies_that_an_earlier_version_stores_meanwhile_are_carried_over_too(earlier, ask):
    Cached(ScriptedChat(words), earlier).ask(ask("a", max_tokens=8))
    key = request_key(ScriptedChat(words).identity, ask("new")[0])
    line = line_of({"text": "old", "finish": "stop", **PAID, "raw": "", "account": "run-1", "key": key})
    path = earlier / "1" / f"{key[:2]}.jsonl"
    with open(path, "ab") as file:
        file.write(line[:-9])  # being written
    assert ReplyStore(earlier).get(key) is None
    with open(path, "ab") as file:
        file.write(line[-9:])
    assert (ReplyStore(earlier).get(key) or {})["text"] == "old"
    assert ReplyStore(earlier).paid_on("run-1") == Cost(32, 16)


def test_a_damaged_line_of_an_earlier_version_loses_its_reply_only(earlier, ask):
    key = request_key(ScriptedChat(words).identity, ask("a", max_tokens=8)[0])
    path = earlier / "1" / f"{key[:2]}.jsonl"
    path.write_bytes(b"\x00\xff\n\n{}\n" + path.read_bytes().replace(b"reply to", b"reply at"))
    chat = ScriptedChat(words)
    cached_chat = Cached(chat, earlier)
    assert texts(cached_chat.ask(ask(*"abc", max_tokens=8))) == ["a 0", "reply to b", "reply to c"]
    assert cached_chat.facts["damaged"] == 4


def test_processes_that_carry_over_at_once_count_once(earlier):
    program = "import sys; from gradatim.teacher.reply_store import ReplyStore; print(ReplyStore(__import__('pathlib').Path(sys.argv[1])).paid_on('run-1'))"  # noqa: E501
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(earlier)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [process.communicate(timeout=60)[0].strip() for process in processes] == [str(Cost(2, 6))] * 3


@pytest.mark.parametrize(
    "unusable",
    [
        {"prompt_tokens": 10**3999},
        {"completion_tokens": 10**12},
        {"prompt_tokens": -1},
        {"prompt_tokens": None},
        {"text": None},
        {"raw": {"a": 1}},
    ],
)
def test_an_entry_of_an_earlier_version_that_cannot_be_used_is_asked_for_anew(unusable, store, ask):
    (request,) = ask("a")
    key = request_key(ScriptedChat(words).identity, request)
    entry = {"text": "old", "finish": "stop", "prompt_tokens": 1, "completion_tokens": 1, "raw": "", **unusable}
    (store / "1").mkdir(parents=True)
    (store / "1" / f"{key[:2]}.jsonl").write_bytes(line_of({**entry, "account": "run", "key": key}))
    chat = ScriptedChat(words)
    cached_chat = Cached(chat, store, account="run")
    assert texts(cached_chat.ask([request])) == ["a 0"]
    assert cached_chat.facts["damaged"] == 1
    assert texts(Cached(chat, store).ask([request])) == ["a 0"]  # what was asked anew is kept
    assert len(chat.asked) == 1
    assert ReplyStore(store).paid_on("run").tokens < 10**9
