"""What is a token when names and digits matter and the text between them hardly varies?

In TinyPy a program is one-letter names and digits, held together by a few dozen fixed phrases: ``" = "``,
``"\nif "``, ``" :\n\tprint("``, ``")\n# output\n# "``. ``lexical_tokenizer`` gives every one-letter word and every
digit a token of its own and makes one token of each phrase between them, so a program takes 2.5 times fewer tokens
than by characters, and numbers are still read and written digit by digit.

Phrases that were not seen, or fell out of a full vocabulary, are spelt by their longest known beginnings, down to
single characters; a character that was never seen is an error, as in ``tokenizer.character_tokenizer``. Words of two
or more letters count as phrases: for code with long names ``bpe_tokenizer`` is the better choice.

Which numbers does a student see for a text, and how does a table become one array of them?

Two makers return ordinary Hugging Face tokenizers that open with nothing of ours installed: one token per
character (the students of 2407.10194), or byte-level BPE trained on the table; ``lexical`` has a third.
``encode_table`` lays all samples end to end in one array, which the batcher cuts; with a folder the arrays are
memory-mapped files, so a table of any length needs little memory.

``<eos>`` ends every sample. It plays the part that the blank line between programs plays in the paper's text
files: the student learns to write it when an output is complete. The special tokens are never read from a text:
a program that prints "<eos>" is encoded by its characters.

This module does not cut or drop long samples (that is the batcher's policy) and makes no attention masks.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ..errors import DataError, StorageFailed
from .prompt_format import shaper
from .text_codec import codec_of

__all__ = [
    "EOS",
    "PAD",
    "Answers",
    "CharacterCodes",
    "Encoded",
    "bpe_tokenizer",
    "character_codes",
    "character_tokenizer",
    "encode_table",
    "lexical_tokenizer",
    "parts_of",
    "spelt",
    "texts_of",
    "wrapped",
]


_ATOM = r"\d|\b[^\W\d]\b"
"""A digit, or a word of one letter; what lies between two matches stays one piece."""


def lexical_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Digits, one-letter words and the phrases between them, at most ``vocabulary`` tokens.

    ``<pad>`` is 0, ``<eos>`` 1, then all characters sorted, then phrases, the most frequent first. The same texts give
    the same tokenizer in any order; prompts and answers belong into ``texts`` apart, as they are encoded, or the phrase
    between them is never met. Raises ``DataError`` when there is no text, or more characters than room.
    """
    split = pre_tokenizers.Split(Regex(_ATOM), "isolated")
    pieces = Counter(piece for text in texts for piece, _ in split.pre_tokenize_str(text))
    if not pieces:
        raise DataError("no text to make a vocabulary from", hint="a table with at least one sample")
    characters = sorted({character for piece in pieces for character in piece})
    room = vocabulary - len(characters) - 2
    if room < 0:
        raise DataError(
            "the vocabulary is too small for the characters of the texts",
            given=vocabulary,
            allowed=f"student.vocabulary: {vocabulary - room} or more",
        )
    phrases = sorted((piece for piece in pieces if len(piece) > 1), key=lambda piece: (-pieces[piece], piece))
    numbers = {token: number for number, token in enumerate([PAD, EOS, *characters, *phrases[:room]])}
    # Longest known beginning first, again for the rest: word pieces without a mark for what continues a word.
    backend = Tokenizer(models.WordPiece(numbers, continuing_subword_prefix="", max_input_chars_per_word=2**31))
    backend.pre_tokenizer = split
    backend.decoder = decoders.Fuse()
    return wrapped(backend)


PAD, EOS = "<pad>", "<eos>"
_ROWS = 16_384
"""Rows encoded at a time: enough to keep numpy busy, little enough to stay in a few megabytes."""

Tokens = npt.NDArray[np.unsignedinteger[Any]]
Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """Further answers to a table's prompts: row i has ``tokens[offsets[i]:offsets[i + 1]]``, one ``<eos>`` last.

    A row without such an answer has no token at all, not even ``<eos>``.
    """

    tokens: Tokens
    offsets: Offsets

    def sizes(self, rows: Offsets) -> Offsets:
        """Tokens of each row's answer, 0 where there is none; shape of ``rows``."""
        return np.asarray(self.offsets[rows + 1] - self.offsets[rows])

    def answer(self, row: int) -> Tokens:
        """The tokens of one answer; a view."""
        return self.tokens[self.offsets[row] : self.offsets[row + 1]]


@dataclass(frozen=True)
class Encoded:
    """A table as numbers.

    ``tokens`` (shape (total,), the smallest unsigned type that holds the vocabulary) is all samples end to end;
    sample i is ``tokens[offsets[i]:offsets[i + 1]]`` = prompt + answer + one ``<eos>``. ``offsets`` (n + 1,) and
    ``answer_starts`` (n,) are int64; ``answer_starts[i]`` is where the answer begins *within* sample i, and equals
    the sample's length minus one when the answer is empty. ``rejected`` (faulty answers) and ``attempt`` (what the
    student wrote) are there when the table had such a column with anything in it.
    """

    tokens: Tokens
    offsets: Offsets
    answer_starts: Offsets
    rejected: Answers | None = None
    attempt: Answers | None = None

    def __len__(self) -> int:
        return len(self.answer_starts)

    def sample(self, row: int) -> Tokens:
        """The tokens of one sample, with its ``<eos>``; a view, shape (length,)."""
        return self.tokens[self.offsets[row] : self.offsets[row + 1]]

    @classmethod
    def open(cls, folder: Path) -> Encoded:
        """What ``encode_table`` wrote to ``folder``, memory-mapped. Raises ``DataError`` when it is not whole."""
        try:
            tokens, offsets, starts = (np.load(_file(folder, name), mmap_mode="r") for name in _ARRAYS)
            further = {
                name: Answers(*(np.load(_file(folder, f"{name}_{part}"), mmap_mode="r") for part in _ARRAYS[:2]))
                for name in _FURTHER
                if _file(folder, f"{name}_offsets").exists()
            }
        except (OSError, ValueError) as error:
            raise DataError("not a whole folder of encoded samples", where=folder, given=str(error)) from error
        parts = [(tokens, offsets), *((answers.tokens, answers.offsets) for answers in further.values())]
        if any(len(ends) != len(starts) + 1 or ends[-1] != len(numbers) for numbers, ends in parts):
            raise DataError("the encoded samples do not fit together", where=folder, hint="encode the table again")
        return cls(tokens, offsets, starts, **further)


_ARRAYS = ("tokens", "offsets", "answer_starts")
_FURTHER = ("rejected", "attempt")
"""Columns with further answers to a prompt."""


def character_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """One token per distinct character of ``texts``: ``<pad>`` is 0, ``<eos>`` 1, then the characters sorted.

    The same set of characters gives the same tokenizer whatever the order of the texts. A character that was not
    seen is an error at encoding, never an ``<unk>``: ``encode_table`` names it, and the tokenizer itself raises.
    Raises ``DataError`` when there is no character at all.
    """
    characters = sorted(_distinct(texts))
    if not characters:
        raise DataError("no text to make a character vocabulary from", hint="a table with at least one sample")
    vocabulary = {token: number for number, token in enumerate([PAD, EOS, *characters])}
    backend = Tokenizer(models.WordLevel(vocabulary))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    return wrapped(backend)


def bpe_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on ``texts``, with at most ``vocabulary`` tokens (fewer when the pairs run out).

    Any text can be encoded, since all 256 bytes are in the vocabulary. Deterministic for the same texts.
    Raises ``DataError`` when ``vocabulary`` cannot hold the bytes and the special tokens.
    """
    smallest = 256 + len((PAD, EOS))
    if vocabulary < smallest:
        raise DataError("the vocabulary is too small", given=vocabulary, allowed=f"{smallest} or more")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return wrapped(backend)


def wrapped(backend: Tokenizer) -> PreTrainedTokenizerFast:
    """The Hugging Face face of a tokenizer whose vocabulary holds ``PAD`` and ``EOS``."""
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=EOS,
        split_special_tokens=True,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def _distinct(texts: Iterable[str]) -> set[str]:
    seen: set[str] = set()
    for text in texts:
        seen.update(text)
    return seen


def texts_of(samples: pa.Table) -> Iterator[str]:
    """What a student learns from each sample, ``prompt + answer``, one at a time, for the makers above."""
    for batch in _columns(samples).to_batches(max_chunksize=_ROWS):
        yield from _joined(batch, "").to_pylist()


def parts_of(samples: pa.Table) -> Iterator[str]:
    """Prompts and answers one by one, apart, as own tokenizers encode them; faulty answers and attempts too."""
    for batch in _columns(samples).to_batches(max_chunksize=_ROWS):
        for name in ("prompt", "answer"):
            yield from pc.fill_null(batch[name], "").to_pylist()
    for name in _further(samples):
        yield from (text for text in samples[name].to_pylist() if text is not None)


@dataclass(frozen=True)
class CharacterCodes:
    """A character vocabulary as a lookup table: ``numbers[code point]`` is the token, or ``unknown``."""

    numbers: npt.NDArray[np.int32]
    unknown: int = -1

    def encode(self, text: str) -> npt.NDArray[np.int32]:
        """Tokens of ``text``, shape (characters,); ``unknown`` where the vocabulary lacks the character."""
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        # The table's last entry is always unknown, so clipping sends every larger code point there.
        return self.numbers[np.minimum(points, len(self.numbers) - 1)]


def character_codes(tokenizer: Any) -> CharacterCodes | None:
    """The lookup table of a tokenizer made by ``character_tokenizer``; None when tokens are not characters."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not isinstance(backend.model, models.WordLevel):
        return None
    special = set(tokenizer.all_special_tokens)
    vocabulary = {token: number for token, number in tokenizer.get_vocab().items() if token not in special}
    if not vocabulary or any(len(token) != 1 for token in vocabulary):
        return None
    numbers = np.full(max(map(ord, vocabulary)) + 2, -1, dtype=np.int32)
    numbers[[ord(character) for character in vocabulary]] = list(vocabulary.values())
    return CharacterCodes(numbers)


def encode_table(tokenizer: PreTrainedTokenizerFast, samples: pa.Table, path: Path | None = None) -> Encoded:
    """Every sample of ``samples`` (columns ``prompt`` and ``answer``) as tokens, in the table's order.

    With ``path`` the arrays are written to that folder (``tokens.npy``, ``offsets.npy``, ``answer_starts.npy``,
    each by rename) and come back memory-mapped; what the folder held before is replaced. A prompt has the tokens that
    it has when a student is asked, in the form that its tokenizer says (``form``); an answer goes on after it without
    the loss or gain of a space, and special tokens that either spells are text (``text_codec``). Where
    ``rejected`` or ``attempt`` holds anything, those answers are encoded beside it (``rejected_tokens.npy``,
    ``rejected_offsets.npy``).

    Raises ``DataError`` for an empty table, a missing column or a character that the tokenizer does not know, and
    ``StorageFailed`` when ``path`` cannot be written.
    """
    if not samples.num_rows:
        raise DataError("an empty table cannot be encoded", hint="a table with at least one sample")
    dtype = np.min_scalar_type(max(len(tokenizer) - 1, 0))
    shape = shaper(tokenizer)
    chunks = _chunks(tokenizer, _columns(samples), dtype, shape)
    further = {name: _answers(tokenizer, samples, name, dtype, shape) for name in _further(samples)}
    if path is None:
        tokens, lengths, starts = (list(parts) for parts in zip(*chunks, strict=True))
        found = {name: _whole(parts) for name, parts in further.items()}
        return Encoded(np.concatenate(tokens), _ends(lengths), np.concatenate(starts), **found)
    try:
        path.mkdir(parents=True, exist_ok=True)
        for name in _FURTHER:  # of another table, if this folder held one
            _file(path, f"{name}_offsets").unlink(missing_ok=True)
            _file(path, f"{name}_tokens").unlink(missing_ok=True)
        lengths, starts = _write_tokens(path, "tokens", dtype, chunks)
        _write_array(path, "offsets", _ends(lengths))
        _write_array(path, "answer_starts", np.concatenate(starts))
        for name, parts in further.items():
            _write_array(path, f"{name}_offsets", _ends(_write_tokens(path, f"{name}_tokens", dtype, parts)[0]))
    except OSError as error:
        raise StorageFailed("the encoded samples cannot be written", where=path, given=str(error)) from error
    return Encoded.open(path)


def _columns(samples: pa.Table) -> pa.Table:
    missing = [name for name in ("prompt", "answer") if name not in samples.column_names]
    if missing:
        raise DataError(f"there is no column {missing[0]!r}", given=", ".join(samples.column_names))
    return samples.select(["prompt", "answer"])


def _further(samples: pa.Table) -> list[str]:
    """The columns of further answers that hold anything."""
    columns = [name for name in _FURTHER if name in samples.column_names]
    return [name for name in columns if samples[name].null_count < samples.num_rows]


def _joined(batch: pa.RecordBatch, end: str) -> pa.Array:
    """``prompt + answer + end`` of each row, as a large_string array."""
    parts = [pc.fill_null(pc.cast(batch[name], pa.large_string()), "") for name in ("prompt", "answer")]
    glue = [pa.scalar(text, pa.large_string()) for text in (end, "")]
    return pc.binary_join_element_wise(*parts, *glue)


Chunk = tuple[Tokens, Offsets, Offsets]


def _chunks(
    tokenizer: PreTrainedTokenizerFast, samples: pa.Table, dtype: npt.DTypeLike, shape: Callable[[str], str] = str
) -> Iterator[Chunk]:
    """(tokens, lengths, answer starts) of a few thousand samples at a time, each prompt put into its ``shape``."""
    codes = character_codes(tokenizer)
    for row in range(0, samples.num_rows, _ROWS):
        # A table put together from many small pieces is made whole a few rows at a time.
        batch = samples.slice(row, _ROWS).combine_chunks().to_batches()[0]
        if codes is not None:
            yield _by_character(codes, batch, int(tokenizer.eos_token_id), row, dtype)
        else:
            yield _by_tokenizer(tokenizer, batch, row, dtype, shape)


def _answers(
    tokenizer: PreTrainedTokenizerFast,
    samples: pa.Table,
    name: str,
    dtype: npt.DTypeLike,
    shape: Callable[[str], str],
) -> Iterator[Chunk]:
    """The answers of one column as ``_chunks`` gives samples; a missing one has no token."""
    column, bound = samples[name], codec_of(tokenizer).bound
    prompts = samples["prompt"] if bound else pa.array([""] * len(column), pa.large_string())
    alone = pa.table({"prompt": prompts, "answer": column})
    row = 0
    try:
        for tokens, lengths, starts in _chunks(tokenizer, alone, dtype, shape if bound else str):
            there = column.slice(row, len(lengths)).is_valid().to_numpy()
            row += len(lengths)
            if bound:  # the prompt was there only for what an answer's tokens are after it
                first = np.cumsum(lengths) - lengths
                tokens = tokens[np.arange(len(tokens)) >= np.repeat(first + starts, lengths)]
                lengths, starts = lengths - starts, np.zeros_like(starts)
            yield tokens[np.repeat(there, lengths)], np.where(there, lengths, 0), starts
    except DataError as error:
        raise DataError(
            error.message, where=f"{error.where} of the column {name!r}", given=error.given, hint=error.hint
        ) from error


def _whole(chunks: Iterable[Chunk]) -> Answers:
    tokens, lengths, _ = (list(parts) for parts in zip(*chunks, strict=True))
    return Answers(np.concatenate(tokens), _ends(lengths))


def _by_character(codes: CharacterCodes, batch: pa.RecordBatch, eos: int, first: int, dtype: npt.DTypeLike) -> Chunk:
    """The whole chunk as one string and one table lookup; a loop over samples would be ten times slower."""
    # Each text is joined with one stand-in character, whose number is then overwritten by that of <eos>.
    joined = _joined(batch, "\n")
    lengths = pc.utf8_length(joined).to_numpy(zero_copy_only=False).astype(np.int64)
    starts = pc.utf8_length(batch["prompt"]).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    numbers = codes.encode(_text(joined))
    ends = np.cumsum(lengths)
    numbers[ends - 1] = eos
    if (numbers == codes.unknown).any():
        position = int(np.argmax(numbers == codes.unknown))
        row = int(np.searchsorted(ends, position, side="right"))
        within = position - (int(ends[row - 1]) if row else 0)
        raise _unknown(joined[row].as_py(), within, first + row)
    return numbers.astype(dtype), lengths, starts


def _text(strings: pa.Array) -> str:
    """All the strings of a large_string array end to end, without a Python object for each."""
    _, offsets, data = strings.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int64)[strings.offset : strings.offset + len(strings) + 1]
    return str(memoryview(data)[bounds[0] : bounds[-1]], "utf-8") if data is not None else ""


def _unknown(text: str, within: int, row: int) -> DataError:
    character = text[within]
    return DataError(
        f"the tokenizer does not know the character {character!r} (U+{ord(character):04X})",
        where=f"sample {row}, character {within}",
        hint="make the tokenizer from all the texts it will meet, or leave this sample out",
    )


def _by_tokenizer(
    tokenizer: PreTrainedTokenizerFast,
    batch: pa.RecordBatch,
    first: int,
    dtype: npt.DTypeLike,
    shape: Callable[[str], str],
) -> Chunk:
    prompts, answers = (pc.fill_null(batch[name], "").to_pylist() for name in ("prompt", "answer"))
    _check_known(tokenizer, prompts, answers, first)
    pairs = codec_of(tokenizer).pairs(list(map(shape, prompts)), answers)
    eos = int(tokenizer.eos_token_id)
    rows = [[*tokens, eos] for tokens, _ in pairs]
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    starts = np.fromiter((start for _, start in pairs), dtype=np.int64, count=len(rows))
    tokens = np.fromiter((number for row in rows for number in row), dtype=dtype, count=int(lengths.sum()))
    return tokens, lengths, starts


def spelt(tokenizer: Any) -> frozenset[str] | None:
    """The characters that a tokenizer without ``<unk>`` can spell; None when it can spell every text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not isinstance(backend.model, models.WordLevel | models.WordPiece):
        return None
    vocabulary = tokenizer.get_vocab()
    if backend.model.unk_token in vocabulary:
        return None
    return frozenset(token for token in vocabulary if len(token) == 1)


def _check_known(tokenizer: Any, prompts: Sequence[str], answers: Sequence[str], first: int) -> None:
    """Raises ``DataError`` for the first text with a character that the tokenizer cannot spell."""
    known = spelt(tokenizer)
    if known is None or known.issuperset("".join(prompts) + "".join(answers)):
        return
    for row, text in enumerate(prompt + answer for prompt, answer in zip(prompts, answers, strict=True)):
        within = next((at for at, character in enumerate(text) if character not in known), None)
        if within is not None:
            raise _unknown(text, within, first + row)


def _ends(lengths: Sequence[Offsets]) -> Offsets:
    offsets = np.zeros(sum(map(len, lengths)) + 1, dtype=np.int64)
    np.cumsum(np.concatenate(lengths), out=offsets[1:])
    return offsets


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"


def _write_tokens(
    folder: Path, name: str, dtype: npt.DTypeLike, chunks: Iterable[Chunk]
) -> tuple[list[Offsets], list[Offsets]]:
    """Append the chunks to ``name``.npy as they come; the length in its header is written last."""
    total = 0
    lengths: list[Offsets] = []
    starts: list[Offsets] = []
    unfinished = folder / f".{name}.npy"
    with open(unfinished, "wb") as file:
        _write_header(file, dtype, 0)
        for tokens, chunk_lengths, chunk_starts in chunks:
            file.write(tokens.tobytes())
            total += len(tokens)
            lengths.append(chunk_lengths)
            starts.append(chunk_starts)
        file.seek(0)
        _write_header(file, dtype, total)
    os.replace(unfinished, _file(folder, name))
    return lengths, starts


def _write_header(file: Any, dtype: npt.DTypeLike, length: int) -> None:
    # numpy pads this header for an axis that grows, so it takes the same bytes for every length.
    description = np.lib.format.dtype_to_descr(np.dtype(dtype))
    header = {"descr": description, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(file, header)


def _write_array(folder: Path, name: str, values: Offsets) -> None:
    unfinished = folder / f".{name}.npy"
    np.save(unfinished, values)
    os.replace(unfinished, _file(folder, name))
