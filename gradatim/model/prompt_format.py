"""A prompt as text that says which of its parts are control tokens.

The mark ``<|im_end|>`` is a control token where a chat template writes it, and ten characters where a question or an
answer contains it. A rendered prompt alone does not show the difference, so ``PromptText`` carries the places of the
template's own control tokens; ``text_codec`` encodes those as control tokens and everything else as text.

Rendering replaces each control token that a message spells by a placeholder, lets the template run, and puts the
spelling back: trimming and all other logic of the template see the message itself. Transformers has a similar option
(``sanitize_control_tokens``, in its latest versions only); it returns tokens without a text, and refuses tokenizers
that spell a control token from characters.

Chat templates whose generation prompt opens a block of thinking (``<think>``).

Such a template has every reply begin inside the block. A taught answer there would teach the model to think the answer
and say nothing, so ``closing`` is what closes the block empty: answers are taught, and compared, behind it. A model of
others that is asked to write keeps the open block and thinks; ``opening`` is what its reply lacks to be read alone.

In what form is a student asked?

A model that was pretrained by others expects its questions in a form of its own: through its tokenizer's chat template,
or as plain text, after the token that its texts begin with. A student is asked in the form in which it was taught, so
that form is settled once, when its first samples are encoded, and travels with its tokenizer into every model folder:
the key ``gradatim`` of ``tokenizer_config.json``, which nobody else reads. What a student writes is in no form: the
answer's text, then the end token.

Tokenizers made by Gradatim have neither template nor such a token: their prompts stay as they are.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..errors import DataError
from ..stage import Event, Events
from ..table.instruction import messages_of

__all__ = [
    "Form",
    "PromptText",
    "Renderer",
    "closing",
    "control_tokens",
    "form_of",
    "is_taught",
    "opening",
    "opens_thinking",
    "plainly",
    "prepared",
    "renderer",
    "shaper",
    "templated",
    "token_key",
]


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


_OPEN = re.compile(r"(?:<(?P<tag>think|thinking|thought|reasoning)>|\[(?P<bracket>THINK)\])\s*\Z")


def opening(prompt: str) -> str:
    """The tag that a rendered prompt leaves open at its end; empty where there is none."""
    found = _OPEN.search(prompt[-200:])
    return "" if found is None else found[0].strip()


def closing(prompt: str) -> str:
    """What makes the open block of a rendered prompt an empty one, as templates write it that do not think."""
    tag = opening(prompt)
    if not tag:
        return ""
    newlines = "\n" * max(0, 2 - (len(prompt) - len(prompt.rstrip("\n"))))
    return f"{newlines}{tag[0]}/{tag[1:]}\n\n"


def opens_thinking(tokenizer: Any) -> str:
    """The tag that the chat template of ``tokenizer`` leaves open; empty without one, or without a template."""
    if not getattr(tokenizer, "chat_template", None):
        return ""
    messages = [{"role": "user", "content": "question"}]
    try:
        return opening(str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)))
    except Exception:  # a template that refuses this conversation is reported when it refuses the user's
        return ""


KEY = "gradatim"
CODEC = 2
"""Part of every ``token_key``; a change of the tokens that a text is encoded as takes a new number."""


@dataclass(frozen=True)
class Form:
    """``system`` stands before a conversation that has no system message of its own."""

    template: Literal["chat", "plain"] = "plain"
    system: str | None = None


def form_of(tokenizer: Any) -> Form:
    """The form that the tokenizer's student was taught in; plain when nothing is said."""
    said = getattr(tokenizer, "init_kwargs", {}).get(KEY)
    return Form(**said) if isinstance(said, dict) else Form()


def is_taught(tokenizer: Any) -> bool:
    """Whether the tokenizer carries the form in which its student was taught."""
    return isinstance(getattr(tokenizer, "init_kwargs", {}).get(KEY), dict)


def shaper(tokenizer: Any) -> Callable[[str], str]:
    """Prompts in the form that the tokenizer's student was taught in."""
    form = form_of(tokenizer)
    return templated(tokenizer, form.system) if form.template == "chat" else plainly(tokenizer)


def templated(tokenizer: Any, system: str | None = None, *, thinking: bool = False) -> Callable[[str], str]:
    """Prompts through the chat template, up to where an answer begins. ``DataError`` without a template.

    A block of thinking that the template opens is closed, so that the answer stands behind it, unless ``thinking``.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise DataError("the model's tokenizer has no chat template", where="chat", hint="leave out chat")

    render = renderer(tokenizer)

    def shape(prompt: str) -> PromptText:
        text = _rendered(render, prompt, system)
        return text if thinking else text + closing(text)

    return shape


def plainly(tokenizer: Any) -> Callable[[str], str]:
    """Prompts after the token that the model's texts began with in training, where there is one.

    Messages of a conversation follow each other with a blank line between them, whoever's they are.
    """
    first: str | None = getattr(tokenizer, "bos_token", None)
    begins = bool(first) and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    if not (begins and first):
        return lambda prompt: "\n\n".join(text for _, text in messages_of(prompt))
    controls, start = [(0, len(first))], len(first)
    return lambda prompt: PromptText(first + "\n\n".join(text for _, text in messages_of(prompt)), controls, start)


def _rendered(render: Renderer, prompt: str, system: str | None) -> PromptText:
    said = messages_of(prompt)
    if system is not None and said[0][0] != "system":
        said = [("system", system), *said]
    messages = [{"role": role, "content": text} for role, text in said]
    try:
        return render(messages)
    # Templates are little programs; what they raise when they refuse a role or an order is their own.
    except Exception as error:
        raise DataError(
            "the chat template refuses a prompt",
            where="student.template",
            given=f"{' '.join(str(error).split())}: {prompt[:60]!r}",
            hint="student.template: plain, or leave out student.system",
        ) from error


def prepared(tokenizer: Any, template: str, system: str | None, config: Any, where: str, events: Events) -> Any:
    """``tokenizer`` ready to teach with: it has an end and a padding token, and knows its form.

    ``config``: the model's, which may know an end where the tokenizer names none. What is chosen here is told as an
    event. Raises ``DataError`` when there is no end token at all, or no template where ``chat`` is asked for.
    """

    def note(text: str) -> None:
        events(Event("note", "student", text=text))

    has_template = bool(getattr(tokenizer, "chat_template", None))
    if template == "chat" and not has_template:
        raise DataError(
            "the base's tokenizer has no chat template", where="student.template", given=where,
            hint="student.template: plain",
        )  # fmt: skip
    form = Form("chat" if template != "plain" and has_template else "plain", system)
    if form.template == "plain" and system is not None:
        raise DataError("plain prompts have no place for a system message", where="student.system", given=where)
    if tokenizer.eos_token_id is None:
        tokenizer.eos_token = _end_by_config(tokenizer, config, where)
        note(f"the tokenizer names no end token: {tokenizer.eos_token!r}, the model's own, is taken")
    if form.template == "chat":
        closing = _closing(tokenizer)
        if closing is not None and closing != tokenizer.eos_token:
            note(f"answers end with {closing!r}, as the chat template says, not with {tokenizer.eos_token!r}")
            tokenizer.eos_token = closing
    if form.template == "chat" and (tag := opens_thinking(tokenizer)):
        note(f"the chat template opens {tag}: answers are taught, and asked for, behind an empty block of thinking")
    if tokenizer.pad_token_id is None:
        # Places that are filled up have no label and are looked at by nobody, so any token will do.
        tokenizer.pad_token = tokenizer.eos_token
        note(f"the tokenizer has no padding token: {tokenizer.eos_token!r} is taken")
    tokenizer.init_kwargs[KEY] = asdict(form)
    return tokenizer


def _end_by_config(tokenizer: Any, config: Any, where: str) -> str:
    said = getattr(config, "eos_token_id", None)
    for number in [said] if isinstance(said, int) else said or []:
        if 0 <= number < len(tokenizer):
            return str(tokenizer.convert_ids_to_tokens(number))
    raise DataError(
        "the tokenizer has no end token, and the model's configuration names none",
        where=where,
        hint="name it: eos_token in tokenizer_config.json",
    )


def _closing(tokenizer: Any) -> str | None:
    """The special token with which the template ends an answer; None when it ends in another way."""
    mark = "answer"
    messages = [{"role": "user", "content": "question"}, {"role": "assistant", "content": mark}]
    try:
        text = str(tokenizer.apply_chat_template(messages, tokenize=False))
    except Exception:  # a template that cannot show an answer says nothing of its end
        return None
    rest = text[text.rindex(mark) + len(mark) :].lstrip() if mark in text else ""
    return next((token for token in _special(tokenizer) if rest.startswith(token)), None)


def _special(tokenizer: Any) -> list[str]:
    """Special tokens, the longest first."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    names = {*tokenizer.all_special_tokens, *(each.content for each in added if each.special)}
    return sorted(names, key=lambda name: (-len(name), name))


def token_key(tokenizer: Any) -> str:
    """A name for what this tokenizer makes of samples: its vocabulary, rules, template and form."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    digest = hashlib.blake2b(rules.encode(), digest_size=8)
    said = [tokenizer.chat_template, tokenizer.eos_token_id, tokenizer.pad_token_id, asdict(form_of(tokenizer)), CODEC]
    said += ["closed thinking"] if opens_thinking(tokenizer) else []
    digest.update(json.dumps(said, sort_keys=True, default=str).encode())
    return digest.hexdigest()
