"""What was paid on an account before?

Every kept reply names the account that it was paid on. ``paid_on`` sums them up, and keeps the sums of all accounts
beside the replies (``accounts.json``) with the place in each file up to which they go: files only grow, so a look reads
what was added since the last one and no more. The sums say what the files say. Removed, damaged, or older than files
that somebody took away, they are made anew. A reply that was paid for twice, where locks do not work, counts twice.
Whether what was paid is too much is ``allowance``'s to say.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..client.allowance import Cost
from ..client.reading import MOST_TOKENS
from .store import Store, entry_of, line_of

__all__ = ["has_token_counts", "paid_on"]


@dataclass
class _Sums:
    """``read``: bytes of each file that the sums cover; ``paid``: tokens of prompts and of completions by account."""

    read: dict[str, int] = field(default_factory=dict)
    paid: dict[str, list[int]] = field(default_factory=dict)


def has_token_counts(entry: Mapping[str, Any]) -> bool:
    """Whether the token counts of a stored reply are possible ones; older versions stored what the server said."""
    counts = [entry.get(name) for name in ("prompt_tokens", "completion_tokens")]
    return all(isinstance(count, int) and 0 <= count <= MOST_TOKENS for count in counts)


def paid_on(store: Store, account: str) -> Cost:
    """The tokens of all replies in ``store`` that were paid on ``account``, by whatever process."""
    path = store.folder / "accounts.json"
    sums, sizes = _load(path), store.sizes()
    if any(sizes.get(name, 0) < covered for name, covered in sums.read.items()):
        sums = _Sums()
    if _read_on(sums, store, sizes):
        _save(path, sums)
    return Cost(*sums.paid.get(account, (0, 0)))


def _read_on(sums: _Sums, store: Store, sizes: dict[str, int]) -> bool:
    """Add what the files have beyond ``sums.read``; whether there was any."""
    before = dict(sums.read)
    for name, size in sizes.items():
        if size == before.get(name):
            continue
        for entry, end in store.since(name, before.get(name, 0)):
            sums.read[name] = end
            if entry is not None and entry.get("account") and has_token_counts(entry):
                paid = sums.paid.setdefault(entry["account"], [0, 0])
                paid[0] += entry["prompt_tokens"]
                paid[1] += entry["completion_tokens"]
    return sums.read != before


def _load(path: Path) -> _Sums:
    """What ``_save`` wrote; empty where nothing whole is there."""
    try:
        kept: Any = entry_of(path.read_bytes())
    except OSError:
        kept = None
    if kept is None or any(count > MOST_TOKENS**2 for paid in kept["paid"].values() for count in paid):
        return _Sums()
    return _Sums(kept["read"], kept["paid"])


def _save(path: Path, sums: _Sums) -> None:
    """Keep the sums. Where they cannot be kept (a cache that is only read) the next look takes longer, and that is all.

    Two threads or processes may do so at once: each writes a file of its own and puts it in place; either is right.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    with contextlib.suppress(OSError):
        try:
            partial.write_bytes(line_of(vars(sums)))
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
