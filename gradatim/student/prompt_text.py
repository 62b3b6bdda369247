"""A prompt as text that says which of its parts are control tokens.

The mark ``<|im_end|>`` is a control token where a chat template writes it, and ten characters where a question or an
answer contains it. A rendered prompt alone does not show the difference, so ``PromptText`` carries the places of the
template's own control tokens; ``text_codec`` encodes those as control tokens and everything else as text.

Rendering replaces each control token that a message spells by a placeholder, lets the template run, and puts the
spelling back: trimming and all other logic of the template see the message itself. Transformers has a similar option
(``sanitize_control_tokens``, in its latest versions only); it returns tokens without a text, and refuses tokenizers
that spell a control token from characters.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["PromptText", "Renderer", "control_tokens", "renderer"]

Renderer = Callable[[Sequence[Mapping[str, str]]], "PromptText"]
"""Messages (``role`` and ``content``) as one prompt, up to where an answer begins."""


class PromptText(str):
    """A text; ``controls`` are the spans (first character, end) of its control tokens, in order.

    The first ``start`` characters are control tokens that precede the text itself (a start token): what follows them is
    encoded as the beginning of a text.
    """

    controls: tuple[tuple[int, int], ...]
    start: int

    def __new__(cls, text: str, controls: Sequence[tuple[int, int]] = (), start: int = 0) -> PromptText:
        made = super().__new__(cls, text)
        made.controls, made.start = tuple(controls), start
        return made

    def __add__(self, text: str) -> PromptText:
        return PromptText(super().__add__(text), self.controls, self.start)

    def respelt(self, names: Mapping[str, str]) -> str:
        """The text after ``start`` with each of its control tokens replaced by its name."""
        parts, last = [], self.start
        for first, end in self.controls:
            if first >= self.start:
                parts += [self[last:first], names[str(self[first:end])]]
                last = end
        return "".join([*parts, self[last:]])

    def characters(self) -> str:
        """The text without its control tokens."""
        return self.respelt(dict.fromkeys((str(self[first:end]) for first, end in self.controls), ""))


def control_tokens(tokenizer: Any) -> dict[str, int]:
    """The control tokens of ``tokenizer`` by their spelling.

    All special tokens, and the marks that a chat template writes although the tokenizer does not call them special.
    Spaces are no marks, nor is a pair such as ``<think>`` and ``</think>``: that is markup inside a text.
    """
    vocabulary = tokenizer.get_vocab()
    added = list(getattr(tokenizer, "added_tokens_decoder", {}).values())
    template = str(getattr(tokenizer, "chat_template", None) or "")
    names = {*tokenizer.all_special_tokens, *(each.content for each in added if each.special)}
    plain = {each.content for each in added if not each.special}
    names |= {name for name in plain if name.strip() and name in template and not _paired(name, plain)}
    return {name: int(vocabulary[name]) for name in sorted(names) if name in vocabulary}


def _paired(name: str, names: set[str]) -> bool:
    other = name.replace("</", "<", 1) if name.startswith("</") else name.replace("<", "</", 1)
    return other != name and other in names


def renderer(tokenizer: Any) -> Renderer:
    """The chat template of ``tokenizer``. What is returned raises what the template raises."""
    names = sorted(control_tokens(tokenizer), key=lambda name: (-len(name), name))
    control = re.compile("|".join(map(re.escape, names)) or "(?!)")  # the longest first, as tokenizers match them
    nonce = secrets.token_hex(8)  # no message contains it

    def render(messages: Sequence[Mapping[str, str]]) -> PromptText:
        spellings: list[str] = []

        def hide(match: re.Match[str]) -> str:
            spellings.append(match[0])
            return f"{nonce}x{len(spellings) - 1}x"

        said = [{**each, "content": control.sub(hide, each["content"])} for each in messages]
        text = str(tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True))
        return _restored(re.split(f"{nonce}x([0-9]+)x", text), spellings, control)

    return render


def _restored(parts: Sequence[str], spellings: Sequence[str], control: re.Pattern[str]) -> PromptText:
    """The prompt of a rendered text's parts: the template's, and in between the numbers of ``spellings``."""
    spans: list[tuple[int, int]] = []
    text = ""
    for number, part in enumerate(parts):
        if number % 2:
            text += spellings[int(part)]
        else:
            spans += [(len(text) + each.start(), len(text) + each.end()) for each in control.finditer(part)]
            text += part
    return PromptText(text, spans)
