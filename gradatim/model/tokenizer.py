"""Training of tokenizers, and encoding of sample tables as token arrays.

The three kinds of tokenizers are plain Hugging Face tokenizers that open without this package: one token per character
(the models of 2407.10194), byte-level BPE, and the phrase tokenizer ``word_level_tokenizer``. ``encode_table`` puts all
samples end to end in one array, memory-mapped if given a folder, so that a table of any length needs little memory;
``training.batches`` truncates long samples and builds attention masks.

``<eos>`` ends every sample, like the blank line between programs in the paper's text files. Special tokens are never
parsed from a text: a program that prints "<eos>" is encoded by its characters.
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
from ..table.instruction import MARK
from .prompt_format import plain_prompt, prompt_format_of, prompt_formatter
from .text_codec import codec_of

_ATOM = r"\d|\b[^\W\d]\b"
"""A digit, or a word of one letter; the text between two matches is one piece."""


def word_level_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A phrase tokenizer: digits, one-letter words and the phrases between them, at most ``vocabulary`` tokens.

    A TinyPy program is one-letter names and digits, joined by a few dozen fixed phrases such as ``"\\nif "`` or
    ``" :\\n\\tprint("``. It has 2.5 times fewer tokens than by characters, and numbers stay digit sequences. Phrases
    outside the vocabulary are split greedily into their longest known prefixes, down to characters; a character that
    did not occur in ``texts`` is an error. Words of two or more letters count as phrases, so for code with long names
    ``bpe_tokenizer`` is the better choice.

    ``<pad>`` is 0, ``<eos>`` 1, then all characters sorted, then phrases by falling frequency. The order of ``texts``
    does not matter. Prompts and answers are separate items of ``texts``, as they are encoded separately. Raises
    ``DataError`` when there is no text, or ``vocabulary`` is smaller than the number of characters.
    """
    split = pre_tokenizers.Split(Regex(_ATOM), "isolated")
    pieces = Counter(piece for text in texts for piece, _ in split.pre_tokenize_str(text))
    if not pieces:
        raise DataError("no text to make a vocabulary from", hint="a table with at least one sample")
    characters = sorted({character for piece in pieces for character in piece})
    capacity = vocabulary - len(characters) - 2
    if capacity < 0:
        raise DataError(
            "the vocabulary is too small for the characters of the texts",
            given=vocabulary,
            allowed=f"student.vocab_size: {vocabulary - capacity} or more",
        )
    phrases = sorted((piece for piece in pieces if len(piece) > 1), key=lambda piece: (-pieces[piece], piece))
    token_ids = {token: index for index, token in enumerate([PAD, EOS, *characters, *phrases[:capacity]])}
    # Greedy longest prefix: WordPiece without a prefix for the pieces inside a word.
    backend = Tokenizer(models.WordPiece(token_ids, continuing_subword_prefix="", max_input_chars_per_word=2**31))
    backend.pre_tokenizer = split
    backend.decoder = decoders.Fuse()
    return transformers_tokenizer(backend)


PAD, EOS = "<pad>", "<eos>"
_ROWS = 16_384
"""Rows per chunk: enough for the speed of numpy, in a few megabytes of memory."""

Tokens = npt.NDArray[np.unsignedinteger[Any]]
Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """A second answer per row of a table: row i has ``tokens[offsets[i]:offsets[i + 1]]``, with ``<eos>`` last.

    A row without a second answer has no token, not even ``<eos>``.
    """

    tokens: Tokens
    offsets: Offsets

    def sizes(self, rows: Offsets) -> Offsets:
        """The number of tokens of each row's answer, 0 without an answer; the shape is that of ``rows``."""
        return np.asarray(self.offsets[rows + 1] - self.offsets[rows])

    def answer(self, row: int) -> Tokens:
        """The tokens of one answer; a view."""
        return self.tokens[self.offsets[row] : self.offsets[row + 1]]


@dataclass(frozen=True)
class Encoded:
    """An encoded table.

    ``tokens`` (shape (total,), the smallest unsigned type that holds the vocabulary) is all samples end to end;
    sample i is ``tokens[offsets[i]:offsets[i + 1]]`` = prompt + answer + one ``<eos>``. ``offsets`` (n + 1,) and
    ``answer_starts`` (n,) are int64; ``answer_starts[i]`` is the index of the answer *within* sample i, which is
    the sample's length minus one when the answer is empty. ``rejected`` (rejected answers) and ``attempt`` (completions
    of the student) are present when the table has a non-empty column of that name.
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

    def take(self, rows: Offsets) -> Encoded:
        """A copy of the samples ``rows`` in memory, in their order, without second answers."""
        samples = [np.asarray(self.sample(int(row))) for row in rows]
        offsets = np.concatenate([[0], np.cumsum([len(sample) for sample in samples])]).astype(np.int64)
        tokens = np.concatenate([self.tokens[:0], *samples])
        return Encoded(tokens, offsets, np.asarray(self.answer_starts[rows]))

    @classmethod
    def open(cls, folder: Path) -> Encoded:
        """The memory-mapped arrays that ``encode_table`` wrote to ``folder``. ``DataError`` when it is incomplete."""
        try:
            tokens, offsets, starts = (np.load(_file(folder, name), mmap_mode="r") for name in _ARRAYS)
            answer_columns = {
                name: Answers(*(np.load(_file(folder, f"{name}_{array}"), mmap_mode="r") for array in _ARRAYS[:2]))
                for name in _ANSWER_COLUMNS
                if _file(folder, f"{name}_offsets").exists()
            }
        except (OSError, ValueError) as error:
            raise DataError("the folder of encoded samples is incomplete", where=folder, given=str(error)) from error
        arrays = [(tokens, offsets), *((answers.tokens, answers.offsets) for answers in answer_columns.values())]
        if any(len(ends) != len(starts) + 1 or ends[-1] != len(values) for values, ends in arrays):
            raise DataError("the encoded samples are inconsistent", where=folder, hint="encode the table again")
        return cls(tokens, offsets, starts, **answer_columns)


_ARRAYS = ("tokens", "offsets", "answer_starts")
_ANSWER_COLUMNS = ("rejected", "attempt")
"""Columns with second answers to a prompt."""


def character_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """One token per distinct character of ``texts``: ``<pad>`` is 0, ``<eos>`` 1, then the characters sorted.

    The order of the texts does not matter. An unknown character is an error at encoding, never an ``<unk>``:
    ``encode_table`` reports it, and the tokenizer itself raises. Raises ``DataError`` when there is no character.
    """
    characters = sorted(_distinct_characters(texts))
    if not characters:
        raise DataError("no text to make a character vocabulary from", hint="a table with at least one sample")
    vocabulary = {token: number for number, token in enumerate([PAD, EOS, *characters])}
    backend = Tokenizer(models.WordLevel(vocabulary))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    return transformers_tokenizer(backend)


def bpe_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on ``texts``, with at most ``vocabulary`` tokens (fewer when no pair is left to merge).

    Any text can be encoded, since all 256 bytes are in the vocabulary. Deterministic for the same texts.
    Raises ``DataError`` when ``vocabulary`` is smaller than the number of bytes and special tokens.
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
    return transformers_tokenizer(backend)


def transformers_tokenizer(backend: Tokenizer) -> PreTrainedTokenizerFast:
    """The Hugging Face tokenizer of a backend whose vocabulary contains ``PAD`` and ``EOS``."""
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=EOS,
        split_special_tokens=True,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def _distinct_characters(texts: Iterable[str]) -> set[str]:
    characters: set[str] = set()
    for text in texts:
        characters.update(text)
    return characters


def texts_of(samples: pa.Table, separator: str = "") -> Iterator[str]:
    """Plain prompt, separator and answer of each sample in one text, as training text of a tokenizer."""
    for batch in _columns(samples).to_batches(max_chunksize=_ROWS):
        yield from _joined(_plain(batch, lambda prompt: plain_prompt(prompt, separator)), "").to_pylist()


def separate_texts(samples: pa.Table, separator: str = "") -> Iterator[str]:
    """Plain prompts with their separator, and answers, as separate texts: training text of a tokenizer.

    Rejected answers and attempts are included.
    """
    for batch in _columns(samples).to_batches(max_chunksize=_ROWS):
        for prompt in pc.fill_null(batch["prompt"], "").to_pylist():
            yield plain_prompt(prompt, separator)
        yield from pc.fill_null(batch["answer"], "").to_pylist()
    for name in _answer_columns(samples):
        yield from (text for text in samples[name].to_pylist() if text is not None)


@dataclass(frozen=True)
class CharacterCodes:
    """A character vocabulary as a lookup table: ``numbers[code point]`` is the token, or ``unknown``."""

    numbers: npt.NDArray[np.int32]
    unknown: int = -1

    def encode(self, text: str) -> npt.NDArray[np.int32]:
        """Tokens of ``text``, shape (characters,); ``unknown`` where the vocabulary lacks the character."""
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        # The table's last entry is always unknown, so clipping maps all larger code points to it.
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
    """All samples of ``samples`` (columns ``prompt`` and ``answer``) as tokens, in the table's order.

    With ``path`` the arrays are written to that folder (``tokens.npy``, ``offsets.npy``, ``answer_starts.npy``,
    each by rename), replacing its contents, and returned memory-mapped. A prompt has the same tokens as in inference,
    in the prompt format of the tokenizer (``prompt_format``); the answer continues it without losing or gaining a
    space, and special tokens spelt in either are text (``text_codec``). Non-empty columns ``rejected`` and ``attempt``
    are encoded as well (``rejected_tokens.npy``, ``rejected_offsets.npy``).

    Raises ``DataError`` for an empty table, a missing column or an unknown character, and ``StorageFailed`` when
    ``path`` cannot be written.
    """
    if not samples.num_rows:
        raise DataError("an empty table cannot be encoded", hint="a table with at least one sample")
    dtype = np.min_scalar_type(max(len(tokenizer) - 1, 0))
    format_prompt = prompt_formatter(tokenizer)
    chunks = _chunks(tokenizer, _columns(samples), dtype, format_prompt)
    answer_columns = {
        name: _answers(tokenizer, samples, name, dtype, format_prompt) for name in _answer_columns(samples)
    }
    if path is None:
        tokens, lengths, starts = (list(arrays) for arrays in zip(*chunks, strict=True))
        answer_arrays = {name: _concatenated(column_chunks) for name, column_chunks in answer_columns.items()}
        return Encoded(np.concatenate(tokens), _ends(lengths), np.concatenate(starts), **answer_arrays)
    try:
        path.mkdir(parents=True, exist_ok=True)
        for name in _ANSWER_COLUMNS:  # those of an earlier table
            _file(path, f"{name}_offsets").unlink(missing_ok=True)
            _file(path, f"{name}_tokens").unlink(missing_ok=True)
        lengths, starts = _write_tokens(path, "tokens", dtype, chunks)
        _write_array(path, "offsets", _ends(lengths))
        _write_array(path, "answer_starts", np.concatenate(starts))
        for name, column_chunks in answer_columns.items():
            _write_array(path, f"{name}_offsets", _ends(_write_tokens(path, f"{name}_tokens", dtype, column_chunks)[0]))
    except OSError as error:
        raise StorageFailed("the encoded samples cannot be written", where=path, given=str(error)) from error
    return Encoded.open(path)


def _columns(samples: pa.Table) -> pa.Table:
    missing = [name for name in ("prompt", "answer") if name not in samples.column_names]
    if missing:
        raise DataError(f"there is no column {missing[0]!r}", given=", ".join(samples.column_names))
    return samples.select(["prompt", "answer"])


def _answer_columns(samples: pa.Table) -> list[str]:
    """The non-empty columns of second answers."""
    columns = [name for name in _ANSWER_COLUMNS if name in samples.column_names]
    return [name for name in columns if samples[name].null_count < samples.num_rows]


def _joined(batch: pa.RecordBatch, end: str) -> pa.Array:
    """``prompt + answer + end`` of each row, as a large_string array."""
    columns = [pc.fill_null(pc.cast(batch[name], pa.large_string()), "") for name in ("prompt", "answer")]
    separators = [pa.scalar(text, pa.large_string()) for text in (end, "")]
    return pc.binary_join_element_wise(*columns, *separators)


def _plain(batch: pa.RecordBatch, format_prompt: Callable[[str], str]) -> pa.RecordBatch:
    """``batch`` with formatted prompts."""
    prompts = [format_prompt(prompt) for prompt in pc.fill_null(batch["prompt"], "").to_pylist()]
    return pa.RecordBatch.from_pydict({"prompt": pa.array(prompts, pa.large_string()), "answer": batch["answer"]})


Chunk = tuple[Tokens, Offsets, Offsets]


def _chunks(
    tokenizer: PreTrainedTokenizerFast,
    samples: pa.Table,
    dtype: npt.DTypeLike,
    format_prompt: Callable[[str], str] = str,
) -> Iterator[Chunk]:
    """(tokens, lengths, answer starts) of a few thousand samples at a time, with formatted prompts."""
    codes, separator = character_codes(tokenizer), prompt_format_of(tokenizer).separator
    for row in range(0, samples.num_rows, _ROWS):
        # A table of many small chunks is combined a few rows at a time.
        batch = samples.slice(row, _ROWS).combine_chunks().to_batches()[0]
        if codes is not None:
            # Prompts of one message stay as they are without a separator, so most tables skip the loop over them.
            if separator or pc.any(pc.starts_with(batch["prompt"].cast(pa.large_string()), MARK)).as_py():
                batch = _plain(batch, format_prompt)
            yield _by_character(codes, batch, int(tokenizer.eos_token_id), row, dtype)
        else:
            yield _by_tokenizer(tokenizer, batch, row, dtype, format_prompt)


def _answers(
    tokenizer: PreTrainedTokenizerFast,
    samples: pa.Table,
    name: str,
    dtype: npt.DTypeLike,
    format_prompt: Callable[[str], str],
) -> Iterator[Chunk]:
    """The answers of one column in chunks as from ``_chunks``; a missing answer has no token."""
    column, bound = samples[name], codec_of(tokenizer).bound
    prompts = samples["prompt"] if bound else pa.array([""] * len(column), pa.large_string())
    table = pa.table({"prompt": prompts, "answer": column})
    row = 0
    try:
        for tokens, lengths, starts in _chunks(tokenizer, table, dtype, format_prompt if bound else str):
            present = column.slice(row, len(lengths)).is_valid().to_numpy()
            row += len(lengths)
            if bound:  # the prompt served only as context of the answer's tokens
                first = np.cumsum(lengths) - lengths
                tokens = tokens[np.arange(len(tokens)) >= np.repeat(first + starts, lengths)]
                lengths, starts = lengths - starts, np.zeros_like(starts)
            yield tokens[np.repeat(present, lengths)], np.where(present, lengths, 0), starts
    except DataError as error:
        raise DataError(
            error.message, where=f"{error.where} of the column {name!r}", given=error.given, hint=error.hint
        ) from error


def _concatenated(chunks: Iterable[Chunk]) -> Answers:
    tokens, lengths, _ = (list(arrays) for arrays in zip(*chunks, strict=True))
    return Answers(np.concatenate(tokens), _ends(lengths))


def _by_character(codes: CharacterCodes, batch: pa.RecordBatch, eos: int, first: int, dtype: npt.DTypeLike) -> Chunk:
    """The whole chunk as one string and one table lookup, ten times faster than a loop over samples."""
    # One placeholder character per text, whose token is then overwritten by <eos>.
    joined = _joined(batch, "\n")
    lengths = pc.utf8_length(joined).to_numpy(zero_copy_only=False).astype(np.int64)
    starts = pc.utf8_length(batch["prompt"]).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    numbers = codes.encode(_text(joined))
    ends = np.cumsum(lengths)
    numbers[ends - 1] = eos
    if (numbers == codes.unknown).any():
        position = int(np.argmax(numbers == codes.unknown))
        row = int(np.searchsorted(ends, position, side="right"))
        offset = position - (int(ends[row - 1]) if row else 0)
        raise _unknown_character(joined[row].as_py(), offset, first + row)
    return numbers.astype(dtype), lengths, starts


def _text(strings: pa.Array) -> str:
    """The strings of a large_string array as one string, without one Python object per string."""
    _, offsets, data = strings.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int64)[strings.offset : strings.offset + len(strings) + 1]
    return str(memoryview(data)[bounds[0] : bounds[-1]], "utf-8") if data is not None else ""


def _unknown_character(text: str, offset: int, row: int) -> DataError:
    character = text[offset]
    return DataError(
        f"the tokenizer has no token for the character {character!r} (U+{ord(character):04X})",
        where=f"sample {row}, character {offset}",
        hint="train the tokenizer on all texts to encode, or remove this sample",
    )


def _by_tokenizer(
    tokenizer: PreTrainedTokenizerFast,
    batch: pa.RecordBatch,
    first: int,
    dtype: npt.DTypeLike,
    format_prompt: Callable[[str], str],
) -> Chunk:
    prompts, answers = (pc.fill_null(batch[name], "").to_pylist() for name in ("prompt", "answer"))
    _check_characters(tokenizer, prompts, answers, first)
    pairs = codec_of(tokenizer).pairs(list(map(format_prompt, prompts)), answers)
    eos = int(tokenizer.eos_token_id)
    rows = [[*tokens, eos] for tokens, _ in pairs]
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    starts = np.fromiter((start for _, start in pairs), dtype=np.int64, count=len(rows))
    tokens = np.fromiter((token for row in rows for token in row), dtype=dtype, count=int(lengths.sum()))
    return tokens, lengths, starts


def vocabulary_characters(tokenizer: Any) -> frozenset[str] | None:
    """The characters in the vocabulary of a tokenizer without ``<unk>``; None when it can encode any text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not isinstance(backend.model, models.WordLevel | models.WordPiece):
        return None
    vocabulary = tokenizer.get_vocab()
    if backend.model.unk_token in vocabulary:
        return None
    return frozenset(token for token in vocabulary if len(token) == 1)


def _check_characters(tokenizer: Any, prompts: Sequence[str], answers: Sequence[str], first: int) -> None:
    """Raise ``DataError`` for the first text with a character outside the vocabulary."""
    characters = vocabulary_characters(tokenizer)
    if characters is None or characters.issuperset("".join(prompts) + "".join(answers)):
        return
    for row, text in enumerate(prompt + answer for prompt, answer in zip(prompts, answers, strict=True)):
        offset = next((index for index, symbol in enumerate(text) if symbol not in characters), None)
        if offset is not None:
            raise _unknown_character(text, offset, first + row)


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
    # numpy pads this header for a growing axis, so its size is the same for all lengths.
    description = np.lib.format.dtype_to_descr(np.dtype(dtype))
    header = {"descr": description, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(file, header)


def _write_array(folder: Path, name: str, values: Offsets) -> None:
    unfinished = folder / f".{name}.npy"
    np.save(unfinished, values)
    os.replace(unfinished, _file(folder, name))
