"""Prompt formats: chat templates, plain prompts with a start token, and thinking blocks.

The prompt format of a student is fixed when its first samples are encoded, and stored with its tokenizer (key
``gradatim`` of ``tokenizer_config.json``), so that training and inference agree. Responses have no format: the text,
then the end token. Tokenizers trained by Gradatim have neither template nor start token. A plain prompt that would run
into its answer is followed by a separator (``needed_separator``).

``<|im_end|>`` is a control token where a chat template writes it, and ten characters where a message contains it.
``PromptText`` carries the spans of the template's control tokens; ``text_codec`` encodes all other text as text. The
renderer replaces control tokens spelt in messages by placeholders, applies the template, and restores the spelling.

If a template's generation prompt opens a thinking block (``<think>``), an answer in the block would train the model to
think the answer and output nothing. So training and comparison close the empty block before the answer
(``thinking_close``); a model that was not trained here keeps it open, and ``thinking_open`` completes its response.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import DataError
from ..stage import Event, Events
from ..table.instruction import messages_of
from ..table.rows import asks_for_output
from .hub import read_model_json

Renderer = Callable[[Sequence[Mapping[str, str]]], "PromptText"]
"""The prompt of messages (``role`` and ``content``), up to the start of the answer."""


class PromptText(str):
    """A text; ``controls`` are the spans (first character, end) of its control tokens, in order.

    The first ``start`` characters are control tokens before the text itself (a start token); the text after them is
    encoded as the beginning of a text.
    """

    controls: tuple[tuple[int, int], ...]
    start: int

    def __new__(cls, text: str, controls: Sequence[tuple[int, int]] = (), start: int = 0) -> PromptText:
        prompt = super().__new__(cls, text)
        prompt.controls, prompt.start = tuple(controls), start
        return prompt

    def __add__(self, text: str) -> PromptText:
        return PromptText(super().__add__(text), self.controls, self.start)

    def respelt(self, names: Mapping[str, str]) -> str:
        """The text after ``start`` with each of its control tokens replaced by its name."""
        segments, last = [], self.start
        for first, end in self.controls:
            if first >= self.start:
                segments += [self[last:first], names[str(self[first:end])]]
                last = end
        return "".join([*segments, self[last:]])

    def characters(self) -> str:
        """The text without its control tokens."""
        return self.respelt(dict.fromkeys((str(self[first:end]) for first, end in self.controls), ""))


def control_tokens(tokenizer: Any) -> dict[str, int]:
    """The control tokens of ``tokenizer``, from spelling to token id.

    All special tokens, and the added tokens in the chat template that the tokenizer does not mark as special, except
    white space and pairs such as ``<think>`` and ``</think>``, which are markup inside a text.
    """
    vocabulary = tokenizer.get_vocab()
    added = list(getattr(tokenizer, "added_tokens_decoder", {}).values())
    template = str(getattr(tokenizer, "chat_template", None) or "")
    names = {*tokenizer.all_special_tokens, *(token.content for token in added if token.special)}
    plain = {token.content for token in added if not token.special}
    names |= {name for name in plain if name.strip() and name in template and not _is_paired(name, plain)}
    return {name: int(vocabulary[name]) for name in sorted(names) if name in vocabulary}


def _is_paired(name: str, names: set[str]) -> bool:
    counterpart = name.replace("</", "<", 1) if name.startswith("</") else name.replace("<", "</", 1)
    return counterpart != name and counterpart in names


def renderer(tokenizer: Any) -> Renderer:
    """The renderer of the chat template of ``tokenizer``; it raises the exceptions of the template."""
    names = sorted(control_tokens(tokenizer), key=lambda name: (-len(name), name))
    control = re.compile("|".join(map(re.escape, names)) or "(?!)")  # the longest first, as tokenizers match them
    nonce = secrets.token_hex(8)  # no message contains it

    def render(messages: Sequence[Mapping[str, str]]) -> PromptText:
        spellings: list[str] = []

        def hide(match: re.Match[str]) -> str:
            spellings.append(match[0])
            return f"{nonce}x{len(spellings) - 1}x"

        hidden = [{**message, "content": control.sub(hide, message["content"])} for message in messages]
        text = str(tokenizer.apply_chat_template(hidden, tokenize=False, add_generation_prompt=True))
        return _restore_spellings(re.split(f"{nonce}x([0-9]+)x", text), spellings, control)

    return render


def _restore_spellings(segments: Sequence[str], spellings: Sequence[str], control: re.Pattern[str]) -> PromptText:
    """The prompt of a rendered text, split at its placeholders: odd segments are indices into ``spellings``."""
    spans: list[tuple[int, int]] = []
    text = ""
    for number, segment in enumerate(segments):
        if number % 2:
            text += spellings[int(segment)]
        else:
            spans += [(len(text) + match.start(), len(text) + match.end()) for match in control.finditer(segment)]
            text += segment
    return PromptText(text, spans)


_OPEN = re.compile(r"(?:<(?P<tag>think|thinking|thought|reasoning)>|\[(?P<bracket>THINK)\])\s*\Z")


def thinking_open(prompt: str) -> str:
    """The open thinking tag at the end of a rendered prompt, or an empty string."""
    match = _OPEN.search(prompt[-200:])
    return "" if match is None else match[0].strip()


def thinking_close(prompt: str) -> str:
    """The text that closes the open thinking block of a rendered prompt, as templates without thinking write it."""
    tag = thinking_open(prompt)
    if not tag:
        return ""
    newlines = "\n" * max(0, 2 - (len(prompt) - len(prompt.rstrip("\n"))))
    return f"{newlines}{tag[0]}/{tag[1:]}\n\n"


def opens_thinking(tokenizer: Any) -> str:
    """The open thinking tag of the generation prompt of ``tokenizer``; empty without one, or without a template."""
    if not getattr(tokenizer, "chat_template", None):
        return ""
    messages = [{"role": "user", "content": "question"}]
    try:
        return thinking_open(str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)))
    except Exception:  # a template that rejects this conversation is reported when it rejects the user's
        return ""


KEY = "gradatim"
CODEC = 2
"""Version of the encoding, part of ``token_key``; incremented when the tokens of a text change."""


@dataclass(frozen=True)
class PromptFormat:
    """A prompt format; ``system`` is the system message of conversations without one.

    ``separator`` stands between a plain prompt and its answer where the prompt does not end in white space.
    """

    template: Literal["chat", "plain"] = "plain"
    system: str | None = None
    separator: str = ""


def prompt_format_of(tokenizer: Any) -> PromptFormat:
    """The prompt format stored in ``tokenizer``; plain without a stored one."""
    stored = getattr(tokenizer, "init_kwargs", {}).get(KEY)
    return PromptFormat(**stored) if isinstance(stored, dict) else PromptFormat()


def has_prompt_format(tokenizer: Any) -> bool:
    """Whether ``tokenizer`` stores a prompt format, that is, belongs to a model trained here."""
    return isinstance(getattr(tokenizer, "init_kwargs", {}).get(KEY), dict)


def is_chat_model(tokenizer: Any) -> bool:
    """Whether the model takes prompts in its chat template: as it was trained here, or else if it has a template."""
    if has_prompt_format(tokenizer):
        return prompt_format_of(tokenizer).template == "chat"
    return bool(getattr(tokenizer, "chat_template", None))


def uses_chat_template(tokenizer: Any, prompts: Sequence[str]) -> bool:
    """Whether the answers to ``prompts`` are evaluated after the chat template, unless an option says otherwise.

    So it is for a chat model and samples with prompts. A model that was not trained here continues TinyPy programs as
    plain text.
    """
    given = [prompt for prompt in prompts if prompt]
    if not given or not is_chat_model(tokenizer):
        return False
    return has_prompt_format(tokenizer) or not all(map(asks_for_output, given))


def note_plain_prompts(tokenizer: Any, suite: str, events: Events) -> None:
    """Say that ``suite`` gives plain prompts to a chat model, which its option ``chat`` changes."""
    if is_chat_model(tokenizer):
        text = f"{suite}: the prompts are plain text; chat=true puts them into the model's chat template"
        events(Event("note", suite, text=text))


def states_separator(folder: Path) -> bool:
    """Whether the prompt format of the tokenizer in ``folder`` has a separator, if only an empty one."""
    try:
        stored = read_model_json(folder / "tokenizer_config.json").get(KEY)
    except (OSError, ValueError):  # opening the tokenizer reports the fault
        return True
    return isinstance(stored, dict) and "separator" in stored


def prompt_formatter(tokenizer: Any) -> Callable[[str], str]:
    """A function that puts prompts into the prompt format stored in ``tokenizer``."""
    form = prompt_format_of(tokenizer)
    return chat_formatter(tokenizer, form.system) if form.template == "chat" else plain_formatter(tokenizer)


def chat_formatter(tokenizer: Any, system: str | None = None, *, thinking: bool = False) -> Callable[[str], str]:
    """A function that applies the chat template, up to the start of the answer. ``DataError`` without a template.

    It closes a thinking block that the template opens, unless ``thinking``.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise DataError("the model's tokenizer has no chat template", where="chat", hint="leave out chat")

    render = renderer(tokenizer)

    def shape(prompt: str) -> PromptText:
        text = _render_prompt(render, prompt, system)
        return text if thinking else text + thinking_close(text)

    return shape


def plain_prompt(prompt: str, separator: str = "") -> str:
    """A prompt as plain text: its messages joined by blank lines, without roles, then ``separator``.

    Nothing is added to an empty prompt, nor to one that ends in white space.
    """
    text = "\n\n".join(text for _, text in messages_of(prompt))
    return text + separator if text and not text[-1].isspace() else text


SEPARATOR = "\n\n"
"""Between prompts and answers that would otherwise run together."""


def needed_separator(prompts: Sequence[str], answers: Sequence[str]) -> str:
    """``SEPARATOR`` when most pairs run together, else an empty string.

    A pair runs together when white space neither ends its prompt nor begins its answer. Pairs without a prompt or
    an answer do not count.
    """
    pairs = [(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True) if prompt and answer]
    joined = sum(not (prompt[-1].isspace() or answer[0].isspace()) for prompt, answer in pairs)
    return SEPARATOR if 2 * joined > len(pairs) else ""


def plain_formatter(tokenizer: Any) -> Callable[[str], str]:
    """A function that puts the start token of the model's training texts, if any, before a plain prompt.

    The prompt is that of ``plain_prompt``, with the separator stored in ``tokenizer``.
    """
    separator = prompt_format_of(tokenizer).separator
    first: str | None = getattr(tokenizer, "bos_token", None)
    begins = bool(first) and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    if not (begins and first):
        return lambda prompt: plain_prompt(prompt, separator)
    controls, start = [(0, len(first))], len(first)
    return lambda prompt: PromptText(first + plain_prompt(prompt, separator), controls, start)


def turns_of(prompt: str, system: str | None) -> list[tuple[str, str]]:
    """Role and text of the messages of ``prompt``, after the message ``system`` unless they have one."""
    turns = messages_of(prompt)
    return turns if system is None or turns[0][0] == "system" else [("system", system), *turns]


def _render_prompt(render: Renderer, prompt: str, system: str | None) -> PromptText:
    messages = [{"role": role, "content": text} for role, text in turns_of(prompt, system)]
    try:
        return render(messages)
    # A template that rejects a role or an order of roles can raise any exception.
    except Exception as error:
        raise DataError(
            "the chat template rejects a prompt",
            where="student.chat_template",
            given=f"{' '.join(str(error).split())}: {prompt[:60]!r}",
            hint="student.chat_template: plain, or leave out student.system_prompt",
        ) from error


def prepare_tokenizer(
    tokenizer: Any, template: str, system: str | None, config: Any, where: str, events: Events
) -> Any:
    """Set up ``tokenizer`` for training: an end token, a padding token and the prompt format.

    ``config``: the model's configuration, whose end token is the fallback. Choices are reported as events. Raises
    ``DataError`` when there is no end token, or no chat template for ``template`` = ``chat``.
    """

    def note(text: str) -> None:
        events(Event("note", "student", text=text))

    has_template = bool(getattr(tokenizer, "chat_template", None))
    if template == "chat" and not has_template:
        raise DataError(
            "the base's tokenizer has no chat template", where="student.chat_template", given=where,
            hint="student.chat_template: plain",
        )  # fmt: skip
    form = PromptFormat("chat" if template != "plain" and has_template else "plain", system)
    if form.template == "plain" and system is not None:
        raise DataError("plain prompts cannot have a system message", where="student.system_prompt", given=where)
    if tokenizer.eos_token_id is None:
        tokenizer.eos_token = _config_end_token(tokenizer, config, where)
        note(f"the tokenizer has no end token: using {tokenizer.eos_token!r} from the model's configuration")
    if form.template == "chat":
        end_token = _template_end_token(tokenizer)
        if end_token is not None and end_token != tokenizer.eos_token:
            note(f"answers end with {end_token!r} as in the chat template, not with {tokenizer.eos_token!r}")
            tokenizer.eos_token = end_token
    if form.template == "chat" and (tag := opens_thinking(tokenizer)):
        note(f"the chat template opens {tag}: answers follow an empty thinking block, in training and in inference")
    if tokenizer.pad_token_id is None:
        # Padding has no label and is masked, so any token is suitable.
        tokenizer.pad_token = tokenizer.eos_token
        note(f"the tokenizer has no padding token: using {tokenizer.eos_token!r}")
    return with_prompt_format(tokenizer, form)


def with_prompt_format(tokenizer: Any, form: PromptFormat) -> Any:
    """``tokenizer`` itself, with ``form`` stored in it."""
    tokenizer.init_kwargs[KEY] = asdict(form)
    return tokenizer


def _config_end_token(tokenizer: Any, config: Any, where: str) -> str:
    end_ids = getattr(config, "eos_token_id", None)
    for token_id in [end_ids] if isinstance(end_ids, int) else end_ids or []:
        if 0 <= token_id < len(tokenizer):
            return str(tokenizer.convert_ids_to_tokens(token_id))
    raise DataError(
        "the tokenizer has no end token, and the model's configuration has none",
        where=where,
        hint="set eos_token in tokenizer_config.json",
    )


def _template_end_token(tokenizer: Any) -> str | None:
    """The special token with which the template ends an answer, or None."""
    answer = "answer"
    messages = [{"role": "user", "content": "question"}, {"role": "assistant", "content": answer}]
    try:
        text = str(tokenizer.apply_chat_template(messages, tokenize=False))
    except Exception:  # the template cannot render an answer
        return None
    remainder = text[text.rindex(answer) + len(answer) :].lstrip() if answer in text else ""
    return next((token for token in _special_tokens(tokenizer) if remainder.startswith(token)), None)


def _special_tokens(tokenizer: Any) -> list[str]:
    """Special tokens, the longest first."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    names = {*tokenizer.all_special_tokens, *(token.content for token in added if token.special)}
    return sorted(names, key=lambda name: (-len(name), name))


def token_key(tokenizer: Any) -> str:
    """A cache key of the encoding: a hash of the tokenizer's vocabulary, rules, template and prompt format."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    digest = hashlib.blake2b(rules.encode(), digest_size=8)
    form = asdict(prompt_format_of(tokenizer))
    if not form["separator"]:  # keys of formats without one stay valid
        del form["separator"]
    settings = [tokenizer.chat_template, tokenizer.eos_token_id, tokenizer.pad_token_id, form, CODEC]
    settings += ["closed thinking"] if opens_thinking(tokenizer) else []
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return digest.hexdigest()
