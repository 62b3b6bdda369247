"""Where do keys and values stay while many texts are written at once?

transformers' own cache copies everything it holds for every token that is written: a quarter of the time that a
small student needs. A ``RoomyLayer`` takes the memory for a whole batch at once and writes each token into its
place; when texts end, the last rows move into the gaps and nothing else is touched. This module knows nothing of
prompts or tokens (``decode`` does).
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

__all__ = ["RoomyLayer", "additive", "in_window", "keeps_everything", "memory_for", "window_of", "without"]


class RoomyLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """One layer's keys and values, with room for ``room`` columns from the start.

    It extends transformers' layer at the place meant for that: ``keys`` and ``values`` (rows, heads, columns, size)
    are views of the part of the room in use, so whatever else reads them sees an ordinary layer.
    """

    def __init__(self, room: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.room = room

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Take the memory, once the first keys tell rows, heads and sizes."""
        super().lazy_initialization(key_states, value_states)
        self._rooms = [
            states.new_empty((*states.shape[:2], self.room, states.shape[3])) for states in (key_states, value_states)
        ]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add columns; returns all keys and values so far. Raises ``RuntimeError`` when the room is too small."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        used = self.get_seq_length()
        for room, states in zip(self._rooms, (key_states, value_states), strict=True):
            room[:, :, used : used + states.shape[2]] = states
        return self._show(used + key_states.shape[2])

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows, in this order, one of them several times if asked; what stays in its place is not copied."""
        used = self.get_seq_length()
        if len(indices) > len(self._rooms[0]):
            more = [room.new_empty((len(indices), *room.shape[1:])) for room in self._rooms]
            for room, kept in zip(more, self._rooms, strict=True):
                room[:, :, :used] = kept[indices, :, :used]
            self._rooms = more
        else:
            places = torch.arange(len(indices), device=indices.device)
            moved = (indices != places).nonzero()[:, 0]
            for room in self._rooms:
                room[moved, :, :used] = room[indices[moved], :, :used]
            self._rooms = [room[: len(indices)] for room in self._rooms]
        self._show(used)

    def _show(self, used: int) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = (room[:, :, :used] for room in self._rooms)
        self.keys, self.values = keys, values
        return keys, values


def memory_for(model: Any, columns: int) -> Cache:
    """An empty cache for ``columns`` tokens; transformers' own for models that do not keep every column."""
    if not keeps_everything(model):
        return DynamicCache(config=model.config)
    return Cache(layers=[RoomyLayer(columns) for _ in range(model.config.num_hidden_layers)])


def keeps_everything(model: Any) -> bool:
    """Whether all keys and values may be kept and a mask tells each layer its part: not so for recurrences, nor for
    windows of models that take one mask for all their layers.
    """
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    if kinds == {"full_attention"}:
        return not getattr(model.config, "sliding_window", None)
    return kinds <= {"full_attention", "sliding_attention"}


def window_of(model: Any) -> int:
    """How many tokens a layer with a window attends to, its own included; 0 for a model without such layers. One that
    has them takes a mask for each kind of layer.
    """
    kinds = getattr(model.config, "layer_types", None) or []
    return int(model.config.sliding_window) if "sliding_attention" in kinds else 0


def in_window(visible: torch.Tensor, window: int) -> torch.Tensor:
    """Of the columns that a query may look at (bool, shape (…, columns)), the last ``window`` ones."""
    return visible & (visible.flip(-1).cumsum(-1).flip(-1) <= window)


def additive(seen: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    """Who may attend to whom as a term of the scores: 0 where ``seen``, the least number of the type elsewhere."""
    return torch.zeros_like(seen, dtype=kind).masked_fill_(~seen, torch.finfo(kind).min)


def without(ended: list[bool]) -> list[int]:
    """The rows that go on, in an order that moves as few as possible: gaps are filled with the last ones."""
    live = [row for row, end in enumerate(ended) if not end]
    count = len(live)
    tail = [row for row in live if row >= count]
    return [row if not ended[row] else tail.pop() for row in range(count)]
