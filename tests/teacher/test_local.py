"""A model in this process writes what its seed, the request and its draw say, whatever else is asked with it."""

from __future__ import annotations

import weakref

import pytest
from students import save_tiny_model

from gradatim.errors import DataError
from gradatim.teacher import Request
from gradatim.teacher.llm_teacher import ScriptedChat
from gradatim.teacher.local import LocalChat
from gradatim.teacher.reply_store import Cached

TEXTS = ["what is the sum of one and two? [user] [assistant] abcdefghijklmnopqrstuvwxyz\n\n" * 9]
TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] "


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model"), TEXTS, context=96)


@pytest.fixture(scope="module")
def chat_formatter(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("templated"), TEXTS, context=96, template=TEMPLATE)


def requests(count: int, **options):
    words = ["one", "two and three", "what is the sum"]
    return [
        Request((("user", f"{words[number % 3]} {'x' * number}"),), **{"max_tokens": 8, "temperature": 0.8, **options})
        for number in range(count)
    ]


def test_a_reply_hangs_on_request_and_draw_and_not_on_its_batch(folder):
    many = requests(7) + requests(3, temperature=0.0) + requests(2, draw=1)
    together = LocalChat(folder, batch=5).ask(many)
    alone = [LocalChat(folder, batch=1).ask([request])[0] for request in reversed(many)]
    assert together == alone[::-1]
    assert together[0] != together[10]  # the same request, another draw
    assert LocalChat(folder, seed=1).ask(many) != together


def test_temperature_zero_is_the_same_for_every_draw(folder):
    one, two = (LocalChat(folder).ask(requests(3, temperature=0.0, draw=draw)) for draw in (0, 1))
    assert one == two


def test_the_chat_template_is_used_where_there_is_one(folder, chat_formatter):
    request = Request((("system", "sum"), ("user", "one")), max_tokens=4)
    assert LocalChat(chat_formatter)._prompts([request])[0] == "[system] sum\n[user] one\n[assistant] "
    assert LocalChat(folder)._prompts([request])[0] == "sum\n\none"
    assert LocalChat(chat_formatter).ask([request]) != LocalChat(folder).ask([request])


def test_tokens_are_counted_and_a_text_that_was_cut_off_says_so(folder):
    chat = LocalChat(folder)
    (reply,) = chat.ask(requests(1))
    assert reply.finish in ("length", "stop", "empty")
    assert chat.facts["prompt_tokens"] == reply.prompt_tokens > 0
    long = chat.ask(requests(6, max_tokens=3))
    assert "length" in {reply.finish for reply in long}


def test_what_the_model_cannot_read_has_no_reply_and_is_counted(folder):
    chat = LocalChat(folder)
    odd = Request((("user", "one two " * 90),), max_tokens=4)
    assert chat.ask([odd, *requests(1)])[0] is None
    assert chat.facts["failed"] == {"too_long": 1}


def test_its_replies_arrive_batch_by_batch_and_are_kept(folder, tmp_path):
    arrived = []
    LocalChat(folder, batch=2).ask(requests(5), received=lambda index, reply: arrived.append(index))
    assert arrived == [0, 1, 2, 3, 4]
    first, second = Cached(LocalChat(folder), tmp_path), Cached(LocalChat(folder), tmp_path)
    assert first.ask(requests(3)) == second.ask(requests(3))
    assert second.facts["paid"]["requests"] == 0


def test_a_model_that_is_given_back_is_gone_and_opened_again_when_asked(folder, tmp_path):
    chat = LocalChat(folder)
    cached = Cached(chat, tmp_path)
    cached.release()  # nothing is opened for it
    first = chat.ask(requests(3))
    weights = [weakref.ref(weight) for weight in chat.student.model.parameters()]
    cached.release()
    cached.release()
    assert weights
    assert [weight for weight in weights if weight() is not None] == []
    assert chat.facts["requests"] == 3
    assert chat.ask(requests(3)) == first == LocalChat(folder).ask(requests(3))


def test_a_chat_that_holds_nothing_has_nothing_to_give_back(tmp_path):
    cached = Cached(ScriptedChat(["yes", "no"]), tmp_path)
    cached.release()
    assert [reply.text for reply in cached.ask(requests(2))] == ["yes", "no"]


def test_it_is_known_by_its_weights_and_not_by_its_place(folder, chat_formatter, tmp_path):
    moved = tmp_path / "elsewhere"
    moved.symlink_to(folder)
    assert LocalChat(folder).identity == LocalChat(moved).identity
    assert str(folder) not in LocalChat(folder).identity
    assert LocalChat(folder).identity != LocalChat(folder, seed=1).identity


def test_what_is_no_model_folder_is_told_before_anything_is_asked(tmp_path):
    with pytest.raises(DataError, match="no model folder"):
        LocalChat(tmp_path)
