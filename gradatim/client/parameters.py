"""The optional parameters of a request, as a server accepts them.

Newer servers refuse ``max_tokens`` (they call it ``max_completion_tokens``), any ``temperature`` but their own, or
``seed``. Settings say so in advance; ``Parameters.adapt`` finds it out from the server's refusal, once for all requests
of a chat. A refusal changes a parameter only when it names the parameter and says that the server does not support it.
"""

from __future__ import annotations

import re
import threading
from typing import Any, Literal, TypeAlias

from .messages import Query

__all__ = ["LimitName", "Parameters"]

LimitName: TypeAlias = Literal["max_tokens", "max_completion_tokens"]
OTHER: dict[LimitName, LimitName] = {
    "max_tokens": "max_completion_tokens",
    "max_completion_tokens": "max_tokens",
}
_UNSUPPORTED = re.compile(
    r"unsupported|not support|n't support|unrecogni[sz]ed|unknown|not (permitted|allowed)|unexpected"
    r"|extra (input|field)|only the default",
    re.IGNORECASE,
)


class Parameters:
    """Which parameters are sent, and under which name. Shared by threads."""

    def __init__(self, limit_name: LimitName = "max_tokens", *, temperature: bool = True, seed: bool = True) -> None:
        self.limit_name = limit_name
        self.sent = {"temperature": temperature, "seed": seed}
        self.notes: list[str] = []
        self._lock = threading.Lock()

    def fields(self, request: Query) -> dict[str, Any]:
        """The parameters of a request's body. Only conversations have a newer name for the limit."""
        fields: dict[str, Any] = {self.limit_name if request.chat else "max_tokens": request.max_tokens}
        values = {"temperature": request.temperature, "seed": request.seed}
        return fields | {name: value for name, value in values.items() if self.sent[name]}

    def adapt(self, fields: dict[str, Any], message: str, code: str, parameter: str) -> bool:
        """Whether a refused request with these ``fields`` is worth another attempt with other parameters."""
        if not _UNSUPPORTED.search(f"{message} {code.replace('_', ' ')}"):
            return False
        # Without a parameter's name in the error, the first word of the message that is one counts.
        named = [parameter] if parameter in fields else re.findall(r"\w+", message)
        name = next((word for word in named if word in fields), None)
        with self._lock:
            if name in OTHER:
                if self.limit_name == name and "messages" in fields:
                    self.limit_name = OTHER[self.limit_name]
                    self.notes.append(f"the server does not take {name!r}; {self.limit_name!r} is sent")
                return "messages" in fields
            if name in self.sent:
                if self.sent[name]:
                    self.sent[name] = False
                    self.notes.append(f"the server does not take {name!r}; it is left out")
                return True
        return False

    def take_notes(self) -> list[str]:
        """Notes that were not taken before."""
        with self._lock:
            notes, self.notes = self.notes, []
        return notes
