# ruff: noqa: E501 - small programs stay on one line
"""Unusual correct answers: every program here is correct by Python's semantics, and passes."""

from __future__ import annotations

import pytest

from gradatim.sandbox.command import sandbox_support
from gradatim.sandbox.interpreter import PythonChecker, PythonJob
from gradatim.sandbox.limits import Limits, Verdict

Case = tuple[str, ...] | tuple[str, str, str | None] | tuple[str, str, str | None, str]
"""Program, body of ``check(candidate)``, entry point (None: the tests are plain asserts; left out: ``f``), prompt."""

# fmt: off
RIGHT: dict[str, Case] = {
    'bytes': ("def f(): return b'a\\0\\xff'", "assert candidate() == b'a\\0\\xff'"),
    'bytearray': ("def f(): return bytearray(b'ab')", "assert candidate() == bytearray(b'ab') == b'ab'"),
    'complex': ('def f(): return complex(1, -2)', 'assert candidate() == 1 - 2j and abs(candidate() - 1) == 2'),
    'decimal': ("from decimal import Decimal\ndef f(): return Decimal('1.10')", "from decimal import Decimal\nassert candidate() == Decimal('1.1') and str(candidate()) == '1.10'"),
    'decimal-nan': ("from decimal import Decimal\ndef f(): return Decimal('sNaN')", 'assert candidate().is_snan()'),
    'fraction': ('from fractions import Fraction\ndef f(): return Fraction(6, 4)', 'from fractions import Fraction\nassert candidate() == Fraction(3, 2)'),
    'range': ('def f(): return range(0, 10, 3)', 'assert candidate() == range(0, 12, 3)'),
    'deque': ('from collections import deque\ndef f(): return deque([1, 2], 3)', 'from collections import deque\nassert candidate() == deque([1, 2]) and candidate().maxlen == 3'),
    'counter': ("from collections import Counter\ndef f(): return Counter('aab')", "from collections import Counter\nassert candidate() == Counter(a=2, b=1) and candidate()['z'] == 0"),
    'ordereddict': ('from collections import OrderedDict\ndef f(): return OrderedDict(b=1, a=2)', "from collections import OrderedDict\nassert candidate() == OrderedDict([('b', 1), ('a', 2)])"),
    'defaultdict': ("from collections import defaultdict\ndef f():\n    d = defaultdict(list)\n    d['a'].append(1)\n    return d", "assert candidate() == {'a': [1]} and candidate()['x'] == []"),
    'defaultdict-lambda': ('from collections import defaultdict\ndef f(): return defaultdict(lambda: 5)', "d = candidate()\nassert d['x'] == 5 and d == {'x': 5}"),
    'defaultdict-nested': ("from collections import defaultdict\ndef f():\n    d = defaultdict(lambda: defaultdict(int))\n    d['a']['b'] += 1\n    return d", "assert candidate() == {'a': {'b': 1}} and candidate()['x']['y'] == 0"),
    'namedtuple': ("from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(): return P(1, 2)", "assert candidate() == (1, 2) and candidate().x == 1 and candidate()._asdict() == {'x': 1, 'y': 2} and candidate()._replace(x=5) == (5, 2)"),
    'namedtuple-typing': ('from typing import NamedTuple\nclass P(NamedTuple):\n    x: int\n    y: int = 0\ndef f(): return P(1)', 'assert candidate() == (1, 0) and candidate().y == 0'),
    'namedtuple-of-the-tests': ("from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(p): return P(p.y, p.x)", "from collections import namedtuple\nP = namedtuple('P', 'x y')\nassert candidate(P(1, 2)) == P(2, 1)"),
    'namedtuple-renamed': ("from collections import namedtuple\nP = namedtuple('P', 'x def _y', rename=True)\ndef f(): return P(1, 2, 3)", 'assert candidate() == (1, 2, 3)'),
    'dataclass-attributes': ('from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n    y: int\ndef f(): return P(1, 2)', 'assert candidate().x == 1 and candidate().y == 2'),
    'dataclass-equal': ('from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n    y: int\ndef f(): return P(1, 2)', 'assert f() == P(1, 2) and f() != P(2, 1)', None),
    'dataclass-of-the-prompt': ('def f(): return P(1, 2)', 'assert candidate() == P(1, 2)\nassert candidate() != P(2, 1)', 'f', 'from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n    y: int\n'),
    'dataclass-argument': ('def f(p): return P(p.y, p.x)', 'p = candidate(P(1, 2))\nassert (p.x, p.y) == (2, 1)', 'f', 'from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n    y: int\n'),
    'node-of-the-prompt': ('def f(head):\n    last = None\n    while head:\n        head.next, last, head = last, head, head.next\n    return last', 'got, node = [], candidate(Node(1, Node(2, Node(3))))\nwhile node:\n    got.append(node.val)\n    node = node.next\nassert got == [3, 2, 1]', 'f', 'class Node:\n    def __init__(self, val=0, next=None):\n        self.val, self.next = val, next\n'),
    'tree-of-the-tests': ('def f(t): return 0 if t is None else 1 + max(f(t.left), f(t.right))', 'class T:\n    def __init__(self, v, left=None, right=None): self.v, self.left, self.right = v, left, right\nassert candidate(T(1, T(2), T(3, T(4)))) == 3'),
    'tree-returned': ('def f(t):\n    if t: t.left, t.right = f(t.right), f(t.left)\n    return t', 't = candidate(T(1, T(2), T(3)))\nassert t.left.v == 3 and t.right.v == 2', 'f', 'class T:\n    def __init__(self, v, left=None, right=None): self.v, self.left, self.right = v, left, right\n'),
    'node-made-from-the-prompt': ('def f(xs):\n    head = None\n    for x in reversed(xs): head = Node(x, head)\n    return head', 'n = candidate([1, 2])\nassert n.val == 1 and n.next.val == 2 and n.next.next is None and isinstance(n, Node)', 'f', 'class Node:\n    def __init__(self, val=0, next=None):\n        self.val, self.next = val, next\n'),
    'enum-name-value': ('from enum import Enum\nclass C(Enum):\n    RED = 1\n    BLUE = 2\ndef f(): return C.BLUE', "assert candidate().name == 'BLUE' and candidate().value == 2"),
    'enum-equal': ('from enum import Enum\nclass C(Enum):\n    RED = 1\n    BLUE = 2\ndef f(): return C.BLUE', 'assert f() == C.BLUE and f() is C.BLUE and f() != C.RED', None),
    'enum-of-the-prompt': ('def f(c): return C.RED if c is C.BLUE else C.BLUE', 'assert candidate(C.BLUE) == C.RED and candidate(C.RED) is C.BLUE', 'f', 'from enum import Enum\nclass C(Enum):\n    RED = 1\n    BLUE = 2\n'),
    'intenum': ('from enum import IntEnum\nclass C(IntEnum):\n    RED = 1\ndef f(): return C.RED', 'assert candidate() == 1'),
    'strenum': ("from enum import Enum\nclass C(str, Enum):\n    RED = 'r'\ndef f(): return C.RED", "assert candidate() == 'r'"),
    'intflag': ('from enum import IntFlag\nclass C(IntFlag):\n    A = 1\n    B = 2\ndef f(): return C.A | C.B', 'assert candidate() == 3'),
    'datetime': ('from datetime import datetime\ndef f(): return datetime(2024, 2, 29, 1, 2)', 'from datetime import datetime, timedelta\nassert candidate() == datetime(2024, 2, 29, 1, 2) and candidate() + timedelta(1) == datetime(2024, 3, 1, 1, 2)'),
    'datetime-utc': ('from datetime import datetime, timezone\ndef f(): return datetime(2024, 1, 1, tzinfo=timezone.utc)', "from datetime import datetime, timezone\nassert candidate() == datetime(2024, 1, 1, tzinfo=timezone.utc) and candidate().tzinfo == timezone.utc and str(candidate().tzname()) == 'UTC' and repr(candidate()) == repr(datetime(2024, 1, 1, tzinfo=timezone.utc))"),
    'timezone': ('from datetime import timezone, timedelta\ndef f(): return timezone(timedelta(hours=2))', 'from datetime import timezone, timedelta\nassert candidate() == timezone(timedelta(hours=2))'),
    'date': ('from datetime import date\ndef f(): return date(2024, 1, 2)', 'from datetime import date\nassert candidate() == date(2024, 1, 2)'),
    'time-fold': ('from datetime import time\ndef f(): return time(1, 2, fold=1)', 'from datetime import time\nassert candidate() == time(1, 2) and candidate().fold == 1'),
    'timedelta': ('from datetime import timedelta\ndef f(): return timedelta(days=-1, microseconds=3)', 'from datetime import timedelta\nassert candidate() == timedelta(days=-1, microseconds=3)'),
    'frozenset': ('def f(): return frozenset({1, 2})', 'assert candidate() == {2, 1} and hash(candidate()) == hash(frozenset({1, 2}))'),
    'sets-of-tuples': ('def f(): return {(1, (2, 3)), (4, (5, frozenset({6})))}', 'assert candidate() == {(4, (5, frozenset({6}))), (1, (2, 3))}'),
    'generator': ('def f():\n    yield 1\n    yield [2]', 'assert list(candidate()) == [1, [2]]'),
    'generator-next': ('def f():\n    yield 1\n    yield 2', 'g = candidate()\nassert next(g) == 1 and next(g) == 2 and next(g, None) is None'),
    'generator-send': ('def f():\n    x = 0\n    while True:\n        got = yield x\n        x += got or 1', 'g = candidate()\nassert next(g) == 0 and g.send(5) == 5 and next(g) == 6\ng.close()\nassert list(g) == []'),
    'generator-throw': ('def f():\n    try:\n        yield 1\n    except ValueError:\n        yield 9', "g = candidate()\nassert next(g) == 1 and g.throw(ValueError('x')) == 9"),
    'iterator-class': ('class I:\n    def __init__(self): self.n = 0\n    def __iter__(self): return self\n    def __next__(self):\n        self.n += 1\n        if self.n > 3: raise StopIteration\n        return self.n\ndef f(): return I()', 'assert list(candidate()) == [1, 2, 3] and sum(candidate()) == 6'),
    'iterator-class-attribute': ('class I:\n    def __init__(self): self.n = 0\n    def __iter__(self): return self\n    def __next__(self):\n        self.n += 1\n        if self.n > 3: raise StopIteration\n        return self.n\ndef f(): return I()', 'i = candidate()\nassert next(i) == 1 and i.n == 1'),
    'iterable-class': ('class I:\n    def __iter__(self): return iter([1, 2])\n    def __len__(self): return 2\ndef f(): return I()', 'assert list(candidate()) == [1, 2] and len(candidate()) == 2'),
    'dict-keys': ("def f(): return {'b': 1, 'a': 2}.keys()", "assert list(candidate()) == ['b', 'a'] and candidate() == {'a', 'b'}"),
    'dict-values': ("def f(): return {'b': 1, 'a': 1}.values()", 'assert sorted(candidate()) == [1, 1] and len(candidate()) == 2'),
    'dict-items': ("def f(): return {'b': [1]}.items()", "assert dict(candidate()) == {'b': [1]}"),
    'ordereddict-keys': ('from collections import OrderedDict\ndef f(): return OrderedDict(b=1).keys()', "assert list(candidate()) == ['b'] and len(candidate()) == 1"),
    'map': ('def f(): return map(str, [1, 2])', "assert list(candidate()) == ['1', '2']"),
    'zip': ("def f(): return zip([1, 2], 'ab')", "assert dict(candidate()) == {1: 'a', 2: 'b'}"),
    'filter': ('def f(): return filter(None, [0, 1])', 'assert tuple(candidate()) == (1,)'),
    'enumerate-reversed': ("def f(): return enumerate(reversed('ab'))", "assert list(candidate()) == [(0, 'b'), (1, 'a')]"),
    'itertools': ('import itertools\ndef f(): return itertools.chain([1], itertools.islice(itertools.count(), 2))', 'assert list(candidate()) == [1, 0, 1]'),
    'memoryview': ("def f(): return memoryview(b'abc')", "assert candidate() == b'abc' and candidate().tobytes() == b'abc'"),
    'memoryview-of-array': ("from array import array\ndef f(): return memoryview(array('i', [1, 2]))", "assert list(candidate()) == [1, 2] and candidate().format == 'i'"),
    'array': ("from array import array\ndef f(): return array('i', [1, -2])", "from array import array\nassert candidate() == array('i', [1, -2]) and candidate().typecode == 'i'"),
    'array-argument': ('def f(a):\n    a.append(3)\n    return a', "from array import array\na = array('i', [1])\nassert candidate(a) is a and a == array('i', [1, 3])"),
    'huge-int': ('def f(): return 7 ** 20000', 'assert candidate() == 7 ** 20000'),
    'int-beyond-str': ('def f(n): return 10 ** n', 'assert candidate(6000) == 10 ** 6000'),
    'nan': ("def f(): return float('nan')", 'import math\nassert math.isnan(candidate()) and candidate() != candidate()'),
    'nan-in-list': ('import math\ndef f(): return [math.nan]', 'import math\nassert math.isnan(candidate()[0])'),
    'nan-math-identity': ('import math\ndef f(): return [math.nan, 1]', 'import math\nassert candidate() == [math.nan, 1]'),
    'inf': ("def f(): return [float('inf'), -float('inf')]", 'import math\nassert candidate() == [math.inf, -math.inf]'),
    'minus-zero': ('def f(): return -0.0', 'import math\nassert math.copysign(1, candidate()) == -1 and candidate() == 0'),
    'lone-surrogate': ("def f(): return chr(0xd800) + 'x'", "assert candidate() == '\\ud800x' and len(candidate()) == 2"),
    'nul': ("def f(): return 'a\\0b'", "assert candidate() == 'a\\0b'"),
    'recursive-list': ('def f():\n    x = [1]\n    x.append(x)\n    return x', 'x = candidate()\nassert x[1] is x and x[0] == 1'),
    'recursive-dict': ("def f():\n    x = {}\n    x['x'] = [x]\n    return x", "x = candidate()\nassert x['x'][0] is x"),
    'deep-list': ('def f(n):\n    x = []\n    for _ in range(n): x = [x]\n    return x', 'x, n = candidate(400), 0\nwhile x: x, n = x[0], n + 1\nassert n == 400'),
    'deep-list-compared': ('def f(n):\n    x = []\n    for _ in range(n): x = [x]\n    return x', 'x = []\nfor _ in range(300): x = [x]\nassert candidate(300) == x'),
    'deep-argument': ('def f(x):\n    n = 0\n    while x: x, n = x[0], n + 1\n    return n', 'x = []\nfor _ in range(400): x = [x]\nassert candidate(x) == 400'),
    'linked-dicts': ("def f(n):\n    x = None\n    for i in range(n): x = {'value': i, 'next': x}\n    return x", "x, n = candidate(300), 0\nwhile x: x, n = x['next'], n + 1\nassert n == 300"),
    'lambda': ('def f(): return lambda x, *a, k=1: (x, a, k)', 'assert candidate()(1, 2, k=3) == (1, (2,), 3)'),
    'closure': ('def f():\n    n = 0\n    def g():\n        nonlocal n\n        n += 1\n        return n\n    return g', 'g = candidate()\nassert g() == 1 and g() == 2 and candidate()() == 1'),
    'partial': ('from functools import partial\ndef f(): return partial(pow, 2)', 'assert candidate()(3) == 8'),
    'builtin-function': ('def f(): return len', 'assert candidate()([1, 2]) == 2'),
    'function-name': ("def f():\n    def g(): 'doc'\n    return g", "assert candidate().__name__ == 'g' and callable(candidate()) and candidate().__doc__ == 'doc'"),
    'decorator': ('import functools\ndef f(g):\n    @functools.wraps(g)\n    def h(*a): return g(*a) + 1\n    return h', "@candidate\ndef g(x): return x\nassert g(1) == 2 and g.__name__ == 'g'"),
    'class-returned': ('def f():\n    class A:\n        n = 4\n        def m(self): return self.n\n    return A', "A = candidate()\nassert A().m() == 4 and A.n == 4 and A.__name__ == 'A'"),
    'class-isinstance': ('class A:\n    pass\nclass B(A): pass\ndef f(): return B()', 'assert isinstance(f(), A) and isinstance(f(), B) and issubclass(B, A) and not isinstance(5, A)', None),
    'class-static': ('class A:\n    @staticmethod\n    def s(x): return x\n    @classmethod\n    def c(cls): return cls.__name__\n    @property\n    def p(self): return 7', "assert A.s(1) == 1 and A.c() == 'A' and A().p == 7", None),
    'type-builtin': ('def f(x): return type(x)', "assert candidate(1) is int and candidate('') == str and candidate(None) is type(None)"),
    'type-more': ('from collections import Counter\nfrom decimal import Decimal\nfrom datetime import date\ndef f(): return [Counter, Decimal, date, bytes, frozenset, range]', 'from collections import Counter\nfrom decimal import Decimal\nfrom datetime import date\nassert candidate() == [Counter, Decimal, date, bytes, frozenset, range]'),
    'valueerror': ("def f(x): raise ValueError('bad', x)", "try:\n    candidate(1)\n    assert False\nexcept ValueError as e:\n    assert e.args == ('bad', 1) and type(e) is ValueError"),
    'keyerror-lookup': ("def f(): return {}['k']", 'try:\n    candidate()\n    assert False\nexcept KeyError as e:\n    assert str(e) == "\'k\'"'),
    'unicode-error': ("def f(): return b'\\xff'.decode()", "try:\n    candidate()\n    assert False\nexcept UnicodeDecodeError as e:\n    assert e.start == 0 and e.object == b'\\xff'"),
    'oserror': ("def f(): open('/nothing')", "try:\n    candidate()\n    assert False\nexcept FileNotFoundError as e:\n    assert e.errno == 2 and e.filename == '/nothing'"),
    'json-error': ("import json\ndef f(): json.loads('{')", 'import json\ntry:\n    candidate()\n    assert False\nexcept json.JSONDecodeError as e:\n    assert e.pos == 1'),
    'decimal-error': ("from decimal import Decimal\ndef f(): return Decimal('x')", 'from decimal import InvalidOperation\ntry:\n    candidate()\n    assert False\nexcept InvalidOperation: pass'),
    'custom-exception': ("class Mine(Exception):\n    def __init__(self, code):\n        super().__init__(f'code {code}')\n        self.code = code\ndef f(): raise Mine(5)", "try:\n    f()\n    assert False\nexcept Mine as e:\n    assert e.code == 5 and str(e) == 'code 5'", None),
    'custom-exception-base': ("class Base(Exception): pass\nclass Mine(Base): pass\ndef f(): raise Mine('x')", "try:\n    f()\n    assert False\nexcept Base as e:\n    assert str(e) == 'x' and type(e).__name__ == 'Mine'", None),
    'exception-of-the-prompt': ("    raise Mine('x')\n", "try:\n    candidate()\n    assert False\nexcept Mine as e:\n    assert str(e) == 'x'", 'f', 'class Mine(Exception): pass\n\ndef f():\n'),
    'exception-cause': ("def f():\n    try: 1 / 0\n    except ZeroDivisionError as e: raise ValueError('v') from e", 'try:\n    candidate()\n    assert False\nexcept ValueError as e:\n    assert isinstance(e.__cause__, ZeroDivisionError)'),
    'exception-notes': ("def f():\n    e = ValueError('v')\n    e.add_note('n')\n    raise e", "try:\n    candidate()\n    assert False\nexcept ValueError as e:\n    assert e.__notes__ == ['n']"),
    'exception-group': ("def f(): raise ExceptionGroup('g', [ValueError('v'), KeyError('k')])", 'try:\n    candidate()\n    assert False\nexcept* ValueError: pass\nexcept* KeyError: pass'),
    'exception-returned': ("def f(): return ValueError('v')", "assert isinstance(candidate(), ValueError) and candidate().args == ('v',)"),
    'exception-class-returned': ('def f(): return ValueError', 'assert candidate() is ValueError'),
    'systemexit-expected': ('import sys\ndef f(): sys.exit(3)', 'try:\n    candidate()\n    assert False\nexcept SystemExit as e:\n    assert e.code == 3'),
    'keyboardinterrupt-expected': ('def f(): raise KeyboardInterrupt', 'try:\n    candidate()\n    assert False\nexcept KeyboardInterrupt: pass'),
    'warning': ("import warnings\ndef f():\n    raise DeprecationWarning('w')", 'try:\n    candidate()\n    assert False\nexcept DeprecationWarning: pass'),
    'assertion': ("def f(x):\n    assert x > 0, 'small'\n    return x", "try:\n    candidate(0)\nexcept AssertionError as e:\n    assert str(e) == 'small'\nelse:\n    assert False"),
    'recursionerror': ('def f(): return f()', 'try:\n    candidate()\n    assert False\nexcept RecursionError: pass'),
    'str-subclass': ("class S(str):\n    def shout(self): return self.upper()\ndef f(): return S('a')", "assert candidate() == 'a'"),
    'int-subclass': ('class I(int): pass\ndef f(): return I(5)', 'assert candidate() == 5 and candidate() + 1 == 6'),
    'list-subclass': ('class L(list): pass\ndef f(): return L([1, 2])', 'assert candidate() == [1, 2]'),
    'dict-subclass': ('class D(dict):\n    def __missing__(self, k): return 0\ndef f(): return D(a=1)', "assert candidate() == {'a': 1}"),
    'tuple-subclass': ('class T(tuple): pass\ndef f(): return T((1, 2))', 'assert candidate() == (1, 2)'),
    'float-subclass': ('class F(float): pass\ndef f(): return F(0.5)', 'assert candidate() == 0.5'),
    'set-subclass': ('class S(set): pass\ndef f(): return S({1})', 'assert candidate() == {1}'),
    'userdict': ('from collections import UserDict\ndef f(): return UserDict(a=1)', "assert candidate() == {'a': 1}"),
    'userlist': ('from collections import UserList\ndef f(): return UserList([1])', 'assert candidate() == [1]'),
    'userstring': ("from collections import UserString\ndef f(): return UserString('a')", "assert candidate() == 'a'"),
    'chainmap': ("from collections import ChainMap\ndef f(): return ChainMap({'a': 1}, {'b': 2})", "assert candidate() == {'a': 1, 'b': 2} and candidate()['b'] == 2"),
    'mappingproxy': ("from types import MappingProxyType\ndef f(): return MappingProxyType({'a': 1})", "assert candidate() == {'a': 1}"),
    'simplenamespace': ('from types import SimpleNamespace\ndef f(): return SimpleNamespace(a=1)', 'from types import SimpleNamespace\nassert candidate().a == 1 and candidate() == SimpleNamespace(a=1)'),
    'path': ("from pathlib import Path\ndef f(): return Path('a') / 'b'", "from pathlib import Path\nassert candidate() == Path('a/b') and str(candidate()) == 'a/b' and candidate().name == 'b'"),
    'uuid': ('import uuid\ndef f(): return uuid.UUID(int=5)', 'import uuid\nassert candidate() == uuid.UUID(int=5)'),
    'ipaddress': ("import ipaddress\ndef f(): return ipaddress.ip_address('10.0.0.1')", "import ipaddress\nassert candidate() == ipaddress.ip_address('10.0.0.1')"),
    're-match': ("import re\ndef f(): return re.match(r'(?P<a>.)b', 'xb')", "assert candidate().group(1) == 'x' and candidate() and candidate().span() == (0, 2) and candidate()['a'] == 'x'"),
    're-pattern': ("import re\ndef f(): return re.compile('a+', re.I)", "import re\nassert candidate().fullmatch('AA') and candidate() == re.compile('a+', re.I)"),
    'stringio': ("import io\ndef f(): return io.StringIO('a\\nb')", "assert candidate().read() == 'a\\nb' and list(candidate()) == ['a\\n', 'b']"),
    'slice-ellipsis': ('def f(): return slice(1, None), ..., NotImplemented', 'assert candidate() == (slice(1, None), ..., NotImplemented)'),
    'statistics': ('from statistics import NormalDist\ndef f(): return NormalDist(1, 2)', 'assert candidate().mean == 1'),
    'coroutine': ('async def f(x): return x + 1', 'import asyncio\nassert asyncio.run(candidate(1)) == 2'),
    'async-generator': ('async def f():\n    yield 1\n    yield 2', 'import asyncio\nasync def g(): return [x async for x in candidate()]\nassert asyncio.run(g()) == [1, 2]'),
    'context-manager': ('from contextlib import contextmanager\n@contextmanager\ndef f():\n    yield 5', 'with candidate() as x:\n    assert x == 5'),
    'context-manager-class': ('class f:\n    def __enter__(self): return 3\n    def __exit__(self, *a): return True', 'with candidate() as x:\n    assert x == 3\n    raise ValueError'),
    'cached': ('import functools\n@functools.lru_cache\ndef f(n): return n if n < 2 else f(n - 1) + f(n - 2)', 'assert candidate(80) == 23416728348467685 and candidate.cache_info().hits > 0'),
    'iterator-argument': ('def f(it): return [x * 2 for x in it]', "assert candidate(iter([1, 2])) == [2, 4] and candidate(x for x in (3,)) == [6] and candidate(map(int, '12')) == [2, 4]"),
    'infinite-iterator-argument': ('from itertools import islice\ndef f(it): return list(islice(it, 3))', 'import itertools\nassert candidate(itertools.count()) == [0, 1, 2]'),
    'zip-of-answers': ('def f(x): return [x, x]', 'assert list(zip(candidate(1), candidate(2))) == [(1, 2), (1, 2)]'),
    'operator-class': ('class V:\n    def __init__(self, x): self.x = x\n    def __add__(self, o): return V(self.x + o.x)\n    def __mul__(self, k): return V(self.x * k)\n    def __neg__(self): return V(-self.x)', 'v = (V(1) + V(2)) * 3\nassert v.x == 9 and (-v).x == -9', None),
    'contains-class': ('class Bag:\n    def __init__(self): self.x = set()\n    def add(self, v): self.x.add(v)\n    def __contains__(self, v): return v in self.x', 'b = Bag()\nb.add(1)\nassert 1 in b and 2 not in b', None),
    'str-of-class': ("class P:\n    def __init__(self, x): self.x = x\n    def __str__(self): return f'P{self.x}'\n    def __repr__(self): return f'<{self.x}>'\n    def __format__(self, s): return f'{s}!'", "assert str(P(1)) == 'P1' and repr(P(2)) == '<2>' and f'{P(1):z}' == 'z!'", None),
    'numpy-array': ('import numpy as np\ndef f(): return np.array([[1, 2], [3, 4]])', 'import numpy as np\nassert np.array_equal(candidate(), np.array([[1, 2], [3, 4]])) and candidate().shape == (2, 2) and (candidate() == [[1, 2], [3, 4]]).all()'),
    'numpy-argument': ('def f(a): return a * 2', 'import numpy as np\nassert (candidate(np.array([1, 2])) == np.array([2, 4])).all()'),
    'numpy-scalar': ("import numpy as np\ndef f(): return np.float64(0.5), np.int32(3), np.bool_(True), np.str_('a')", "import numpy as np\nassert candidate() == (0.5, 3, True, 'a')"),
    'numpy-dtypes': ("import numpy as np\ndef f(): return np.arange(3, dtype='float32')", 'import numpy as np\nassert candidate().dtype == np.float32 and np.allclose(candidate(), [0, 1, 2])'),
    'numpy-datetime': ("import numpy as np\ndef f(): return np.datetime64('2024-01-01')", "import numpy as np\nassert candidate() == np.datetime64('2024-01-01')"),
    'compare-class-of-the-prompt': ('    def __init__(self, x): self.x = x\n    def __eq__(self, o): return self.x == o.x\n    def __lt__(self, o): return self.x < o.x\n', 'assert candidate(1) < candidate(2) and candidate(2) == candidate(2) and not candidate(3) < candidate(2)', 'V', 'class V:\n'),
    'class-that-extends-list': ('class Stack(list):\n    def push(self, x): self.append(x); return self\n    def top(self): return self[-1]', 's = candidate()\nassert s.push(1).push(2) is s and s.top() == 2 and s == [1, 2] and len(s) == 2 and s.pop() == 2', 'Stack'),
    'class-that-extends-dict': ('from collections import OrderedDict\nclass Cache(OrderedDict):\n    def __init__(self, n): self.n = n\n    def get(self, k):\n        if k not in self: return -1\n        self.move_to_end(k)\n        return self[k]\n    def put(self, k, v):\n        self[k] = v\n        if len(self) > self.n: self.popitem(last=False)', 'c = candidate(2)\nc.put(1, 1)\nc.put(2, 2)\nassert c.get(1) == 1\nc.put(3, 3)\nassert c.get(2) == -1 and c == {1: 1, 3: 3}', 'Cache'),
    'generator-of-one-list-that-grows': ('def f(n):\n    a = []\n    for i in range(n):\n        a.append(i)\n        yield a', 'seen = [list(x) for x in candidate(4)]\nassert seen == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]\nsame = list(candidate(3))\nassert same == [[0, 1, 2]] * 3 and same[0] is same[2]'),
    'none-compared': ('class Node:\n    def __init__(self, v, n=None): self.v, self.next = v, n\ndef f(): return Node(1, Node(2))', 'n, got = candidate(), []\nwhile n != None:\n    got.append(n.v)\n    n = n.next\nassert got == [1, 2]'),
    'set-of-dataclasses': ('from dataclasses import dataclass\n@dataclass(frozen=True)\nclass P:\n    x: int\ndef f(): return {P(1), P(2)}', 'assert f() == {P(2), P(1)} and P(3) not in f()', None),
    'stringio-argument': ('def f(s): return [line.strip() for line in s], s.getvalue()', "import io\nassert candidate(io.StringIO('a\\nb')) == (['a', 'b'], 'a\\nb')"),
    'object-with-methods-argument': ("def f(a):\n    a.deposit(5)\n    a.name = 'x'\n    return a.balance, len(a), [i for i in a], a[1]", "class Account:\n    balance, name = 1, ''\n    def deposit(self, n): self.balance += n\n    def __len__(self): return 3\n    def __iter__(self): return iter([1, 2])\n    def __getitem__(self, i): return i * 2\na = Account()\nassert candidate(a) == (6, 3, [1, 2], 2) and a.balance == 6 and a.name == 'x'"),
    'file-left-by-the-program': ("def f():\n    with open('x', 'w') as file: file.write('a')\n    return open('x').read()", "assert candidate() == 'a'"),
}
# fmt: on


def job(case: Case) -> PythonJob:
    program, tests, *more = case
    entry = more[0] if more else "f"
    prompt = more[1] if len(more) > 1 else ""
    if entry is not None:
        tests = "def check(candidate):\n" + "\n".join("    " + line for line in str(tests).split("\n"))
    return PythonJob(str(prompt), str(program), str(tests), entry)


@pytest.fixture(scope="module")
def verdicts() -> dict[str, Verdict]:
    """All of them, tried at once."""
    if not sandbox_support().available:
        pytest.skip(f"no sandbox: {sandbox_support().reason}")
    with PythonChecker(limits=Limits(cpu_seconds=3), packages=["numpy"]) as checker:
        return dict(zip(RIGHT, checker.check([job(case) for case in RIGHT.values()]), strict=True))


@pytest.mark.parametrize("name", RIGHT)
def test_an_odd_but_right_answer_passes(verdicts: dict[str, Verdict], name: str) -> None:
    assert verdicts[name].outcome == "passed", verdicts[name]


# fmt: off
WRONG: dict[str, Case] = {
    'a list where the order counts': ('def f(): return [2, 1]', 'assert candidate() == [1, 2]'),
    'a tuple for a list': ('def f(): return (1, 2)', 'assert candidate() == [1, 2]'),
    'an array of other numbers': ('import numpy as np\ndef f(): return np.array([1, 3])', 'import numpy as np\nassert np.array_equal(candidate(), [1, 2])'),
    'a dataclass of other fields': ('from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\ndef f(): return P(2)', 'assert f() == P(1)', None),
    'another member': ('from enum import Enum\nclass C(Enum):\n    RED = 1\n    BLUE = 2\ndef f(): return C.BLUE', 'assert f() == C.RED', None),
    'an instance of the prompt with another value': ('def f(): return P(2)', 'assert candidate() == P(1)', 'f', 'from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n'),
    'another path': ("from pathlib import Path\ndef f(): return Path('a')", "from pathlib import Path\nassert candidate() == Path('b')"),
    'another exception': ('class A(Exception): pass\nclass B(Exception): pass\ndef f(): raise B', 'try:\n    f()\n    assert False\nexcept A: pass', None),
    'another zone': ('from datetime import *\ndef f(): return datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1)))', 'from datetime import datetime, timezone\nassert candidate() == datetime(2024, 1, 1, tzinfo=timezone.utc)'),
    'one list yielded again and again': ('def f():\n    a = []\n    for i in range(3):\n        a.append(i)\n        yield a', 'assert list(candidate()) == [[0], [0, 1], [0, 1, 2]]'),
    'a deep list that ends otherwise': ('def f():\n    x = [2]\n    for _ in range(300): x = [x]\n    return x', 'x = [1]\nfor _ in range(300): x = [x]\nassert candidate() == x'),
    'another default': ('from collections import defaultdict\ndef f(): return defaultdict(lambda: 1)', "assert candidate()['x'] == 0"),
}
# fmt: on


def test_an_odd_and_wrong_answer_fails() -> None:
    if not sandbox_support().available:
        pytest.skip(f"no sandbox: {sandbox_support().reason}")
    with PythonChecker(limits=Limits(cpu_seconds=3), packages=["numpy"]) as checker:
        verdicts = dict(zip(WRONG, checker.check([job(case) for case in WRONG.values()]), strict=True))
    assert {name: result.outcome for name, result in verdicts.items()} == dict.fromkeys(WRONG, "failed")
