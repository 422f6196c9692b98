"""From text in any script to numbers: words as bags of hashed character n-grams, no download.

A word is looked up by itself and by its character n-grams, so that forms of a word, words that
languages share, and words that training never saw have something in common. Characters of scripts
that write no spaces are tokens of their own, looked up alone and with each neighbour.

Defined for any text: see `clean`. The hash is CRC-32 of UTF-8, the same in every process and on
every machine.
"""

import re
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor

MAX_LETTERS = 24
"""Letters of a word; longer ones (addresses, noise) are cut into several."""

_SPACELESS = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Thai, Lao, Tibetan, Burmese, Khmer, kana and Chinese characters: no spaces between words."""


@dataclass(frozen=True)
class TokenizerConfig:
    """How texts become numbers.

    Attributes:
        buckets: rows of the table that pieces are hashed into.
        n_min: letters of the shortest n-grams.
        n_max: letters of the longest.
        max_words: tokens of a text; the rest is cut off.
        kind: `ngrams`, or `bytes`: each byte of UTF-8 a token of its own, for comparison.
    """

    buckets: int = 16_384
    n_min: int = 3
    n_max: int = 5
    max_words: int = 96
    kind: Literal["ngrams", "bytes"] = "ngrams"

    def __post_init__(self) -> None:
        """Refuse what cannot be hashed into."""
        if self.buckets < 256 or self.max_words < 1:
            raise ValueError(
                f"buckets must be 256 or more and max_words 1 or more, got {self.buckets} and "
                f"{self.max_words}"
            )
        if not 1 <= self.n_min <= self.n_max <= MAX_LETTERS:
            raise ValueError(
                f"n_min and n_max must be a range in 1..{MAX_LETTERS}, got {self.n_min} and "
                f"{self.n_max}"
            )
        if self.kind not in ("ngrams", "bytes"):
            raise ValueError(f"kind must be ngrams or bytes, got {self.kind!r}")


class Clean(NamedTuple):
    """A text as it is read, and what was done to it.

    Attributes:
        text: composed (NFKC), lower case, without what is not seen.
        notes: in words, for whoever gave the text; empty if nothing was lost.
    """

    text: str
    notes: tuple[str, ...]


class Tokens(NamedTuple):
    """Texts as numbers; each different token is held once.

    Attributes:
        pieces: `(U, K)` int64 of the different tokens: rows of the table, 0 for none.
        words: `(B, L)` int64: 1 + which token stands there, 0 for none.
    """

    pieces: Tensor
    words: Tensor

    def to(self, device: torch.device) -> "Tokens":
        """The same on a device."""
        return Tokens(self.pieces.to(device), self.words.to(device))


def clean(text: str | bytes) -> Clean:
    """Text as it is read.

    - Bytes that are no UTF-8, and lone surrogates, become U+FFFD, with a note; it is no token.
    - Wide, narrow and composed forms are made one (NFKC); capitals become small (case folding).
    - Marks of direction, joiners, variation selectors and control characters are left out, so a
      right-to-left text reads in the order in which it is said, and an emoji is one symbol.

    Raises:
        TypeError: for what is neither text nor bytes.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    if not isinstance(text, str):
        raise TypeError(f"a text must be str or bytes, got {type(text).__name__}")
    plain = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    lost = plain.count("\ufffd")
    # Case folding may leave uncomposed letters behind.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", plain).casefold())
    kept = "".join(c if _is_seen(c) else " " if c in "\t\n\r\v\f" else "" for c in folded)
    notes = (f"{lost} characters that are no Unicode left out",) if lost else ()
    return Clean(kept.replace("\ufffd", " "), notes)


def _is_seen(character: str) -> bool:
    # Cf: directions, joiners; Cc: controls; variation selectors and skin tones change looks.
    if "\ufe00" <= character <= "\ufe0f" or "\U0001f3fb" <= character <= "\U0001f3ff":
        return False
    return unicodedata.category(character) not in ("Cf", "Cc")


class Tokenizer:
    """Turns texts into `Tokens`."""

    def __init__(self, config: TokenizerConfig | None = None) -> None:
        """Nothing is learnt and nothing is read."""
        self.config = config or TokenizerConfig()
        self._pieces = lru_cache(maxsize=1 << 17)(self._hash)
        self.split = lru_cache(maxsize=1 << 18)(self._read)
        """Words of a text, cleaned; see `split_words`."""

    def __call__(self, texts: Sequence[str | bytes]) -> Tokens:
        """Numbers of texts.

        Args:
            texts: one or more, each with a word at least.

        Raises:
            TypeError: for a single text instead of a sequence.
            ValueError: for no text, or one without any word, by its number.
        """
        if isinstance(texts, str | bytes):
            raise TypeError("give a list of texts: [text]")
        if not len(texts):
            raise ValueError("give one text at least, got none")
        self.check(texts)
        split = [self.split(text)[: self.config.max_words] for text in texts]
        index: dict[tuple[str, ...], int] = {}
        rows = [[1 + index.setdefault(word, len(index)) for word in words] for words in split]
        words = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
        for k, row in enumerate(rows):
            words[k, : len(row)] = torch.tensor(row)
        hashed = [self._pieces(word) for word in index]
        pieces = torch.zeros(len(hashed), max(map(len, hashed)), dtype=torch.int64)
        for k, one in enumerate(hashed):
            pieces[k, : len(one)] = torch.tensor(one)
        return Tokens(pieces, words)

    def check(self, texts: Sequence[str | bytes]) -> None:
        """Refuse texts without any word.

        Raises:
            ValueError: naming the first.
        """
        for number, text in enumerate(texts):
            if not self.split(text):
                raise ValueError(
                    f"text {number} has no word: {text[:40]!r}; give letters, digits or symbols"
                )

    def notes(self, text: str | bytes) -> tuple[str, ...]:
        """What of a text is not read, in words; empty if nothing."""
        n, most = len(self.split(text)), self.config.max_words
        cut = (f"only the first {most} of {n:,} words are read",) if n > most else ()
        return (*clean(text).notes, *cut)

    def _read(self, text: str | bytes) -> tuple[tuple[str, ...], ...]:
        plain = clean(text).text
        if self.config.kind == "bytes":
            return tuple((f"\x00{byte}",) for byte in plain.strip().encode())
        return split_words(plain)

    def _hash(self, word: tuple[str, ...]) -> tuple[int, ...]:
        """Rows of the table of a token, 1 to `buckets`."""
        config = self.config
        found = dict.fromkeys(word)
        if len(word) == 1 and len(word[0]) > 1 and config.kind == "ngrams":
            framed = f"<{word[0]}>"
            for n in range(config.n_min, config.n_max + 1):
                for start in range(len(framed) - n + 1):
                    found[framed[start : start + n]] = None
        return tuple(1 + zlib.crc32(piece.encode()) % config.buckets for piece in found)


def split_words(text: str) -> tuple[tuple[str, ...], ...]:
    """Tokens of a cleaned text, each as what it is looked up by.

    A word is `(word,)`. A character of a script without spaces is `(c, before + c, c + after)`. A
    symbol that is no punctuation, such as an emoji, is `(symbol,)`. Punctuation is left out.
    """
    found: list[tuple[str, ...]] = []
    word = ""
    for place, character in enumerate(text):
        kind = unicodedata.category(character)[0]
        spaceless = kind in "LMN" and bool(_SPACELESS.match(character))
        if kind in "LMN" and not spaceless and len(word) < MAX_LETTERS:
            word += character
            continue
        if word:
            found.append((word,))
            word = ""
        if spaceless:
            found.append(_with_neighbours(text, place))
        elif kind in "LMN":
            word = character
        elif kind == "S":
            found.append((character,))
    return (*found, (word,)) if word else tuple(found)


def _with_neighbours(text: str, place: int) -> tuple[str, ...]:
    character = text[place]
    before, after = text[place - 1 : place], text[place + 1 : place + 2]
    pairs = [before + character] if place and _SPACELESS.match(before) else []
    pairs += [character + after] if after and _SPACELESS.match(after) else []
    return (character, *pairs)
