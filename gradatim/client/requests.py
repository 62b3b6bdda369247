"""How do many requests go out at a time, and again when they stumble?

A ``Sending`` is one call of ``ask``: threads send requests within ``Rates`` and a ``Budget``, and what stumbles is sent
again, after the time that the server names or a growing pause. A request that is rejected, or still stumbles while
others are answered, has no reply and is counted; an endpoint that answers nobody ends the call. What is under way when
a call ends still arrives and is handed on, so that nothing paid for is lost. What a stumble is, ``endpoint`` says.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import TeacherFailed
from ..stage import Event, Events
from .endpoint import Endpoint, Rejected, Stumble, most_of
from .messages import Budget, Cost, Query, Rates, Received, Reply, request_number

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["Patience", "Sending", "Tally"]


AT_START = 2
"""Retries while nothing at all was received: who mistyped an address need not wait for all of them."""


@dataclass(frozen=True)
class Patience:
    """How often one request is sent again, and after how many seconds: the first pause, doubled each time, at most
    ``longest_wait``."""

    retries: int
    first_wait: float
    longest_wait: float


class Tally:
    """What a chat has received and what it has not, over all its calls. Shared by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.last_received: float | None = None
        self._counts: Counter[str] = Counter()
        self._retried: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()

    def received(self, reply: Reply, told: bool) -> None:
        """A reply is here; ``told``: the server said how many tokens it took."""
        with self._lock:
            self.last_received = time.monotonic()
            self._counts.update(requests=1, prompt=reply.prompt_tokens, completion=reply.completion_tokens)
            self._counts["without_usage"] += not told

    def retried(self, cause: str) -> None:
        """A request will be sent again."""
        with self._lock:
            self._retried[cause] += 1

    def failed(self, cause: str) -> None:
        """A request goes without a reply."""
        with self._lock:
            self._failed[cause] += 1

    def facts(self, price: Callable[[Cost], float]) -> dict[str, Any]:
        """See ``ApiChat.facts``."""
        with self._lock:
            counts, used = self._counts, Cost(self._counts["prompt"], self._counts["completion"])
            return {
                "requests": counts["requests"],
                "cached": 0,
                "prompt_tokens": used.prompt,
                "completion_tokens": used.completion,
                "cost": price(used),
                "retries": self._retried.total(),
                "retried": dict(sorted(self._retried.items())),
                "failed": dict(sorted(self._failed.items())),
                "without_usage": counts["without_usage"],
            }


class Sending:
    """One call of ``ask``: what its threads share. ``received`` is told each reply, by one thread at a time."""

    def __init__(
        self,
        endpoint: Endpoint,
        requests: Sequence[Query],
        received: Received,
        *,
        patience: Patience,
        rates: Rates,
        budget: Budget,
        tally: Tally,
        label: str = "ask the teacher",
    ) -> None:
        self.endpoint, self.requests, self.received = endpoint, requests, received
        self.patience, self.rates, self.budget, self.tally = patience, rates, budget, tally
        self.label = label
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.fatal: BaseException | None = None
        self.replies: list[Reply | None] = [None] * len(requests)
        self.rejections: list[str] = []

    def run(self, concurrency: int, events: Events) -> list[Reply | None]:
        """Send all, so many at a time. When ``events`` raises, what is under way still arrives before this ends."""
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(min(concurrency, len(self.requests))) as pool:
            try:
                self._watch(pool, events)
            finally:
                self.stop.set()
        return self._result()

    def _watch(self, pool: ThreadPoolExecutor, events: Events) -> None:
        from concurrent.futures import FIRST_COMPLETED, wait

        total = len(self.requests)
        events(Event("start", self.label, 0, total))
        waiting: set[Future[None]] = {pool.submit(self._one, place) for place in range(total)}
        while waiting:
            # Woken now and then without news, so that a listener can stop the work.
            _, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            for note in self.endpoint.parameters.take_notes():
                events(Event("note", self.label, text=note))
            if not self.stop.is_set():
                events(Event("advance", self.label, total - len(waiting), total))
        if self.fatal is None:
            events(Event("finish", self.label, total, total))

    def _result(self) -> list[Reply | None]:
        if self.fatal is not None:
            raise self.fatal
        if self.rejections and self.tally.last_received is None:
            raise TeacherFailed(
                "the endpoint refuses every request",
                where=self.endpoint.base_url,
                given=self.rejections[0],
                hint="see whether it takes the options given (seeded, send_temperature, limit_name, extra)",
            )
        return self.replies

    def _one(self, place: int) -> None:
        """Ask until there is a reply, none can be had, or all is stopped."""
        try:
            self._ask(place)
        except BaseException as error:  # told by the thread that called ask, whatever it is
            with self.lock:
                self.fatal = self.fatal or error
            self.stop.set()

    def _ask(self, place: int) -> None:
        request = self.requests[place]
        most, began = most_of(request), time.monotonic()
        for attempt in range(self.patience.retries + 1):
            if self.stop.is_set() or not self.budget.reserve(most, self.stop.is_set):
                return
            used = Cost(0, 0)
            try:
                if not self._wait_for_turn(most):
                    return
                reply, told = self.endpoint.send(request)
                used = Cost(reply.prompt_tokens, reply.completion_tokens)
                self.tally.received(reply, told)
                with self.lock:
                    self.replies[place] = reply
                    self.received(place, reply)
                return
            except Rejected as refused:
                self.tally.failed("rejected")
                with self.lock:
                    self.rejections.append(str(refused))
                return
            except Stumble as stumble:
                fault = stumble
            finally:
                self.budget.settle(most, used)
                self.rates.give_back(max(0, most.tokens - used.tokens))
            if self._give_up(fault, attempt, began):
                return
            self._pause(fault, request, attempt)

    def _wait_for_turn(self, most: Cost) -> bool:
        """False when all was stopped meanwhile."""
        while not self.stop.wait(self.rates.reserve(most.tokens)):
            if not self.rates.held():
                return True
            self.rates.give_back(most.tokens)  # the server asked for quiet meanwhile: take another place after it
        return False

    def _give_up(self, fault: Stumble, attempt: int, began: float) -> bool:
        """Whether this request goes without a reply; raises when nobody is answered."""
        last = self.tally.last_received
        most = self.patience.retries if last is not None else min(self.patience.retries, AT_START)
        if fault.after is not None and fault.after > self.patience.longest_wait:
            raise self._failure(f"the endpoint asks to come back in {fault.after:.0f} seconds", fault)
        if attempt < most:
            return False
        if fault.cause != "429" and last is not None and last > began:
            self.tally.failed(fault.cause)
            return True
        what = "the endpoint does not answer" if last is None else "the endpoint does not answer any more"
        raise self._failure(f"{what}, asked {attempt + 1} times", fault)

    def _failure(self, what: str, fault: Stumble) -> TeacherFailed:
        done = sum(reply is not None for reply in self.replies)
        hint = f"see to the server, then run the same command again: the replies received ({done} just now) are kept"
        if fault.cause == "429":
            hint = f"set requests_per_minute or a smaller concurrency; {hint}"
        return TeacherFailed(what, where=self.endpoint.base_url, given=f"{fault.cause}: {fault.said}", hint=hint)

    def _pause(self, fault: Stumble, request: Query, attempt: int) -> None:
        self.tally.retried(fault.cause)
        if fault.after:
            self.rates.hold(fault.after)
            return
        # Spread by a share that hangs on the request, so that those that stumbled together do not come back together.
        share = 0.5 + request_number(request, attempt) / 2**32
        self.stop.wait(min(self.patience.first_wait * 2**attempt, self.patience.longest_wait) * share)
