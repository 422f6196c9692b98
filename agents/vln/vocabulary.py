"""Words of instructions as numbers, in any script.

A word that training saw often enough has a number of its own. Any other falls into one of a few
hashed buckets, so that two unknown words are mostly told apart and nothing is ever refused for
being unknown.
"""

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Scripts written without spaces (Thai to Khmer, kana, Han): each character is a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
# Marks (accents, vowel signs) belong to the letter before; `\w` does not hold them all.
_WORD = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])[\w\u0300-\u036f\u0900-\u0d7f])+|[^\w\s]")
_MARKS = frozenset("PZCM")


@dataclass(frozen=True)
class Vocabulary:
    """Numbers of words: 0 is padding, 1 to `buckets` are unknown words, then those that are known.

    Attributes:
        words: known words, distinct.
        buckets: numbers for unknown words, at least 1.
        max_words: most words of an instruction that are read. Of a longer one the first half and
            the last half of so many are: routes begin at the front and say where to stop at the
            back.
    """

    words: tuple[str, ...]
    buckets: int = 32
    max_words: int = 96

    def __post_init__(self) -> None:
        """Refuse what cannot number words."""
        if len(set(self.words)) != len(self.words):
            raise ValueError("words of a vocabulary must be distinct")
        if self.buckets < 1 or self.max_words < 2:
            raise ValueError(
                f"buckets must be at least 1 and max_words at least 2, got {self.buckets} and "
                f"{self.max_words}"
            )
        numbers = {word: self.buckets + 1 + k for k, word in enumerate(self.words)}
        object.__setattr__(self, "_numbers", numbers)

    def __len__(self) -> int:
        """Numbers in use, padding among them."""
        return 1 + self.buckets + len(self.words)

    def encode(self, instruction: str) -> NDArray[np.int64]:
        """Numbers of the words of an instruction.

        Args:
            instruction: text in any script.

        Returns:
            `(L,)` with 1 <= L <= `max_words`.

        Raises:
            ValueError: if it holds no word.
        """
        found = split_words(instruction)
        if not any(unicodedata.category(word[0])[0] not in _MARKS for word in found):
            raise ValueError(
                f"instruction must hold at least one word, got {instruction[:40]!r}: say where"
            )
        if len(found) > self.max_words:
            front = self.max_words // 2
            found = found[:front] + found[front - self.max_words :]
        return np.array([self._number(word) for word in found], np.int64)

    def to_dict(self) -> dict[str, Any]:
        """JSON values from which `from_dict` makes the same vocabulary."""
        return {
            "words": list(self.words),
            "buckets": self.buckets,
            "max_words": self.max_words,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Vocabulary":
        """Read what `to_dict` gave.

        Raises:
            ValueError: for anything else.
        """
        words = values.get("words")
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError("vocabulary must hold a list of words")
        try:
            return cls(tuple(words), int(values["buckets"]), int(values["max_words"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"vocabulary lacks a number: {error}") from None

    @classmethod
    def of(
        cls,
        instructions: Iterable[str],
        min_count: int = 3,
        buckets: int = 32,
        max_words: int = 96,
    ) -> "Vocabulary":
        """Vocabulary of the words that instructions hold often enough.

        Args:
            instructions: of the training split.
            min_count: least count of a word.
            buckets: see the class.
            max_words: see the class.
        """
        counts = Counter(word for text in instructions for word in split_words(text))
        kept = sorted(word for word, count in counts.items() if count >= min_count)
        return cls(tuple(kept), buckets, max_words)

    def _number(self, word: str) -> int:
        # CRC-32 is the same in every process, unlike Python's own hash of a string.
        unknown = 1 + zlib.crc32(word.encode("utf-8", "replace")) % self.buckets
        numbers: dict[str, int] = self.__dict__["_numbers"]
        return numbers.get(word, unknown)


def split_words(text: str) -> list[str]:
    """Words and marks of a text, in lower case and Unicode form NFKC."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
