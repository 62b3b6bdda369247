"""Concurrent requests with retries.

A ``RequestBatch`` sends the requests of one call from several threads, within ``Rates`` and a ``Budget``. A
``RetryableError`` leads to another attempt, after the server's ``retry-after`` or an exponential pause. A request that
is rejected, or fails while others succeed, has no reply and is counted; an endpoint that fails for all requests ends
the call. Requests in flight at the end of a call are completed and their replies handed on, so that no reply that was
paid for is lost.
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
from .endpoint import Endpoint, RequestRejected, RetryableError, max_cost
from .messages import Budget, Cost, Query, Rates, Received, Reply, request_number

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["RequestBatch", "RequestCounts", "RetryPolicy"]


INITIAL_RETRIES = 2
"""Most retries before the first reply, so that a mistyped address is reported soon."""


@dataclass(frozen=True)
class RetryPolicy:
    """Number of retries per request, and the pauses in seconds: ``first_wait``, doubled with every retry, at most
    ``longest_wait``."""

    retries: int
    first_wait: float
    longest_wait: float


class RequestCounts:
    """Counts of replies, retries and failures over all calls of a chat. Shared by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.last_received: float | None = None
        self._counts: Counter[str] = Counter()
        self._retried: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()

    def received(self, reply: Reply, with_usage: bool) -> None:
        """Count a reply; ``with_usage``: with the server's token counts."""
        with self._lock:
            self.last_received = time.monotonic()
            self._counts.update(requests=1, prompt=reply.prompt_tokens, completion=reply.completion_tokens)
            self._counts["without_usage"] += not with_usage

    def retried(self, cause: str) -> None:
        """Count a retry."""
        with self._lock:
            self._retried[cause] += 1

    def failed(self, cause: str) -> None:
        """Count a request without a reply."""
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


class RequestBatch:
    """The requests of one call and the state that its threads share. ``received`` is called for every reply, by one
    thread at a time."""

    def __init__(
        self,
        endpoint: Endpoint,
        requests: Sequence[Query],
        received: Received,
        *,
        policy: RetryPolicy,
        rates: Rates,
        budget: Budget,
        counts: RequestCounts,
        label: str = "query the teacher",
    ) -> None:
        self.endpoint, self.requests, self.received = endpoint, requests, received
        self.policy, self.rates, self.budget, self.counts = policy, rates, budget, counts
        self.label = label
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.fatal: BaseException | None = None
        self.replies: list[Reply | None] = [None] * len(requests)
        self.rejections: list[str] = []

    def run(self, concurrency: int, events: Events) -> list[Reply | None]:
        """Send all, so many at a time. When ``events`` raises, requests in flight are completed first."""
        # Imported here because ``plan`` creates teachers and sends no request.
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
        pending: set[Future[None]] = {pool.submit(self._run_one, index) for index in range(total)}
        while pending:
            # The timeout lets a listener stop the work while no request ends.
            _, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            for note in self.endpoint.parameters.take_notes():
                events(Event("note", self.label, text=note))
            if not self.stop.is_set():
                events(Event("advance", self.label, total - len(pending), total))
        if self.fatal is None:
            events(Event("finish", self.label, total, total))

    def _result(self) -> list[Reply | None]:
        if self.fatal is not None:
            raise self.fatal
        if self.rejections and self.counts.last_received is None:
            raise TeacherFailed(
                "the endpoint refuses every request",
                where=self.endpoint.base_url,
                given=self.rejections[0],
                hint="check whether the server supports the options (seeded, send_temperature, limit_name, extra)",
            )
        return self.replies

    def _run_one(self, index: int) -> None:
        """Send one request; an error of any kind stops the call and is raised by ``run``."""
        try:
            self._send(index)
        except BaseException as error:
            with self.lock:
                self.fatal = self.fatal or error
            self.stop.set()

    def _send(self, index: int) -> None:
        """Send one request until there is a reply, the retries are exhausted, or the call is stopped."""
        request = self.requests[index]
        maximum, start = max_cost(request), time.monotonic()
        for attempt in range(self.policy.retries + 1):
            if self.stop.is_set() or not self.budget.reserve(maximum, self.stop.is_set):
                return
            used = Cost(0, 0)
            try:
                if not self._wait_for_slot(maximum):
                    return
                reply, with_usage = self.endpoint.send(request)
                used = Cost(reply.prompt_tokens, reply.completion_tokens)
                self.counts.received(reply, with_usage)
                with self.lock:
                    self.replies[index] = reply
                    self.received(index, reply)
                return
            except RequestRejected as rejection:
                self.counts.failed("rejected")
                with self.lock:
                    self.rejections.append(str(rejection))
                return
            except RetryableError as retryable:
                error = retryable
            finally:
                self.budget.settle(maximum, used)
                self.rates.give_back(max(0, maximum.tokens - used.tokens))
            if self._give_up(error, attempt, start):
                return
            self._pause(error, request, attempt)

    def _wait_for_slot(self, maximum: Cost) -> bool:
        """Wait for a slot of the rate limits; False when the call was stopped meanwhile."""
        while not self.stop.wait(self.rates.reserve(maximum.tokens)):
            if not self.rates.held():
                return True
            self.rates.give_back(maximum.tokens)  # a hold has begun meanwhile: reserve a slot after it
        return False

    def _give_up(self, error: RetryableError, attempt: int, start: float) -> bool:
        """Whether this request remains without a reply; raises when the endpoint fails for all requests."""
        last = self.counts.last_received
        retries = self.policy.retries if last is not None else min(self.policy.retries, INITIAL_RETRIES)
        if error.after is not None and error.after > self.policy.longest_wait:
            raise self._failure(f"the endpoint requests a wait of {error.after:.0f} seconds", error)
        if attempt < retries:
            return False
        if error.cause != "429" and last is not None and last > start:
            self.counts.failed(error.cause)
            return True
        text = "the endpoint does not answer" if last is None else "the endpoint does not answer any more"
        raise self._failure(f"{text} ({attempt + 1} attempts)", error)

    def _failure(self, text: str, error: RetryableError) -> TeacherFailed:
        count = sum(reply is not None for reply in self.replies)
        hint = f"check the server, then run the same command again: the replies received ({count} just now) are stored"
        if error.cause == "429":
            hint = f"set requests_per_minute or a smaller concurrency; {hint}"
        return TeacherFailed(text, where=self.endpoint.base_url, given=f"{error.cause}: {error.message}", hint=hint)

    def _pause(self, error: RetryableError, request: Query, attempt: int) -> None:
        self.counts.retried(error.cause)
        if error.after:
            self.rates.hold(error.after)
            return
        # A jitter that depends on the request, so that requests that failed together are not retried together.
        jitter = 0.5 + request_number(request, attempt) / 2**32
        self.stop.wait(min(self.policy.first_wait * 2**attempt, self.policy.longest_wait) * jitter)
