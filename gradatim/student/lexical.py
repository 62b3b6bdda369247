r"""What is a token when names and digits matter and the text between them hardly varies?

In TinyPy a program is one-letter names and digits, held together by a few dozen fixed phrases: ``" = "``,
``"\nif "``, ``" :\n\tprint("``, ``")\n# output\n# "``. ``lexical_tokenizer`` gives every one-letter word and every
digit a token of its own and makes one token of each phrase between them, so a program takes 2.5 times fewer tokens
than by characters, and numbers are still read and written digit by digit.

Phrases that were not seen, or fell out of a full vocabulary, are spelt by their longest known beginnings, down to
single characters; a character that was never seen is an error, as in ``tokenizer.character_tokenizer``. Words of two
or more letters count as phrases: for code with long names ``bpe_tokenizer`` is the better choice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ..errors import DataError
from .tokenizer import EOS, PAD, wrapped

__all__ = ["lexical_tokenizer"]

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
