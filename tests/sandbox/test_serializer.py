"""Values cross as plain data, keep what they are, and nothing hostile crosses with them."""

from __future__ import annotations

import contextlib
import math
import random
import struct
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.sandbox.inside.reader import decode, decode_contents
from gradatim.sandbox.inside.serializer import MAX_DEPTH, Handle, Malformed, Unsendable
from gradatim.sandbox.inside.writer import encode, encode_contents


def sent(value: Any) -> Any:
    return decode(encode(value)[0])[0]


PLAIN = [
    None, True, False, 0, -1, 2**63 - 1, -(2**63), 2**63, -(2**4000), 0.5, math.inf, -math.inf, 1e308, 5e-324,
    complex(1, -0.0), "", "é𝄞", "\ud800 alone", "\0", b"", b"\xff\0", bytearray(b"ab"), [], [1, "a", None],
    list(range(100)), [0.5] * 40, [2**70] * 20, [True] * 20, (), (1, (2,)),
    {}, {"b": 1, "a": [2]}, set(), {1, 2}, frozenset({3}),
    range(3, -9, -2), slice(1, None, 2), ..., Counter("aab"), OrderedDict(b=1, a=2), deque([1, 2], maxlen=3), deque(),
    Fraction(-3, 7), Decimal("-0.10"), Decimal("1E+400"),
    datetime(2024, 2, 29, 1, 2, 3, 4), datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=-3))), date(1, 1, 1),
    time(23, 59, 59, 999999), timedelta(days=-1, microseconds=1), int, list, ValueError, type(None),
]  # fmt: skip


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: f"{type(value).__name__}-{str(value)[:20]!a}")
def test_a_value_arrives_equal_and_of_the_same_type(value: Any) -> None:
    arrived = sent(value)
    assert type(arrived) is type(value)
    assert arrived == value


def test_not_a_number_and_negative_zero_keep_their_bits() -> None:
    assert struct.pack("<d", sent(math.nan)) == struct.pack("<d", math.nan)
    assert struct.pack("<d", sent(-0.0)) == struct.pack("<d", -0.0)
    assert math.copysign(1, sent([-0.0] * 20)[3]) == -1
    assert math.copysign(1, sent(complex(1, -0.0)).imag) == -1


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters()) | st.binary()
    | st.fractions() | st.dates() | st.timedeltas()
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(scalars, inner),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(values)
def test_any_nest_of_values_arrives_equal(value: Any) -> None:
    assert sent(value) == value


@settings(max_examples=150, deadline=None)
@given(values, st.data())
def test_damaged_bytes_are_malformed_or_a_value_never_another_error(value: Any, data: st.DataObject) -> None:
    message = bytearray(encode(value)[0])
    for _ in range(3):
        place = data.draw(st.integers(0, len(message) - 1))
        message[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Malformed):
        decode(bytes(message))


def test_random_bytes_are_malformed() -> None:
    generator = random.Random(1)
    refused = 0
    for _ in range(3000):
        try:
            decode(generator.randbytes(generator.randrange(60)))
        except Malformed:
            refused += 1
    assert refused > 2500


def test_a_count_is_not_believed_before_its_bytes_are_there() -> None:
    with pytest.raises(Malformed, match="promises more"):
        decode(b"t" + struct.pack("<I", 1 << 30))


def test_bytes_left_over_are_malformed() -> None:
    with pytest.raises(Malformed, match="left over"):
        decode(b"NN")


def test_the_order_of_a_dict_is_kept() -> None:
    assert list(sent({"z": 1, "a": 2, "m": 3})) == ["z", "a", "m"]


def test_a_defaultdict_keeps_a_builtin_factory_and_loses_another() -> None:
    arrived = sent(defaultdict(list, a=[1]))
    assert arrived == {"a": [1]}
    assert arrived["b"] == []
    assert sent(defaultdict(lambda: 0, a=1)).default_factory is None


def test_a_named_tuple_keeps_its_fields() -> None:
    Point = namedtuple("Point", "x y")
    arrived = sent(Point(1, [2]))
    assert arrived == (1, [2])
    assert (arrived.x, arrived._fields, repr(arrived)) == (1, ("x", "y"), "Point(x=1, y=[2])")


def test_shared_references_and_cycles_survive() -> None:
    inner: list[Any] = []
    inner.append(inner)
    arrived = sent({"a": inner, "b": inner})
    assert arrived["a"] is arrived["b"]
    assert arrived["a"][0] is arrived["a"]


def test_a_dict_view_and_an_exception_arrive_as_such() -> None:
    assert sent({"a": 1}.keys()) == {"a"}
    assert sent({"a": 1}.items()) == {("a", 1)}
    assert list(sent({"a": 1}.values())) == [1]
    arrived = sent(KeyError("k"))
    assert type(arrived) is KeyError
    assert arrived.args == ("k",)


class EqualToAll(int):
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


class Colour(IntEnum):
    RED = 7


@pytest.mark.parametrize("base", [int, float, str, list, tuple, dict, set, frozenset, bytes, bytearray])
def test_a_subclass_arrives_as_the_builtin_it_extends(base: Any) -> None:
    members = {name: lambda self, *_: True for name in ("__eq__", "__contains__", "__len__", "__iter__")}
    kind = type("Liar", (base,), members | {"__hash__": lambda self: 0})
    arrived = sent(kind())
    assert type(arrived) is base
    assert arrived == base()
    assert arrived != "anything"


def test_an_enumeration_of_numbers_arrives_as_a_number() -> None:
    assert type(sent(Colour.RED)) is int
    assert type(sent(EqualToAll(3))) is int


def test_other_types_are_refused_by_their_name() -> None:
    class Answer: ...

    with pytest.raises(Unsendable, match="Answer"):
        encode([Answer()])


def test_other_types_can_be_lent_as_a_handle() -> None:
    thing = object()
    message, _ = encode([thing], export=lambda value: Handle(True, 5, "object", type(value).__name__))
    assert decode(message, resolve=lambda handle: handle)[0] == [Handle(True, 5, "object", "object")]
    with pytest.raises(Malformed):
        decode(message)


def test_too_deep_is_refused_on_both_sides() -> None:
    deep: list[Any] = []
    for _ in range(MAX_DEPTH + 1):
        deep = [deep]
    with pytest.raises(Unsendable, match="deep"):
        encode(deep)
    with pytest.raises(Malformed, match="deep"):
        decode((b"t" + struct.pack("<I", 1)) * 2 * MAX_DEPTH + b"N")


def test_too_long_is_refused() -> None:
    with pytest.raises(Unsendable, match="longer"):
        encode("x" * (33 << 20))


@pytest.mark.parametrize("name", [b"eval", b"open", b"type", b"BaseException", b"SystemExit", b"__import__"])
def test_nothing_but_plain_types_is_reached_by_name(name: bytes) -> None:
    with pytest.raises(Malformed):
        decode(b"x" + struct.pack("<I", len(name)) + name)
    with pytest.raises(Malformed):
        decode(b"X" + struct.pack("<I", len(name)) + name + b"t" + struct.pack("<I", 0))


def test_what_became_of_arguments_comes_back_into_the_same_objects() -> None:
    mine: Any = {"rows": [3, 1, 2], "seen": {1}, "raw": bytearray(b"ab"), "q": deque([1], maxlen=2)}
    message, containers = encode(mine)
    theirs, their_containers = decode(message)
    theirs["rows"].sort()
    theirs["rows"].append(theirs["rows"])
    theirs["seen"].add(9)
    theirs["raw"].extend(b"c")
    theirs["q"].extend([7, 8])
    theirs["new"] = fresh = [0]
    reply, numbered = encode(fresh, numbered=their_containers)
    contents = encode_contents(their_containers, numbered=numbered)

    rows = mine["rows"]
    result, my_numbered = decode(reply, numbered=containers)
    decode_contents(contents, containers, numbered=my_numbered)
    assert rows[:3] == [1, 2, 3]
    assert rows[3] is rows
    assert (mine["seen"], mine["raw"], mine["q"]) == ({1, 9}, b"abc", deque([7, 8]))
    assert mine["new"] is result


def test_arguments_cannot_come_back_as_another_type() -> None:
    _, containers = encode([1])
    with pytest.raises(Malformed, match="another type"):
        decode_contents(encode_contents([{}], numbered=[{}]), containers, numbered=containers)
