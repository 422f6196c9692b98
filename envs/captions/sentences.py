"""Captions: facts said in English in several ways, and in four languages by one rule each."""

from collections.abc import Callable, Sequence

from envs.captions.facts import Facts, Thing
from envs.captions.words import (
    CHINESE_COLORS,
    CZECH_COLORS,
    CZECH_ENDINGS,
    FRENCH_ARTICLES,
    FRENCH_COLORS,
    GERMAN_ARTICLES,
    GERMAN_COLORS,
    GERMAN_ENDINGS,
    GERMAN_UNBENDING,
    LANGUAGES,
    NOUNS,
    PLACES,
    SIDE_WORDS,
)

TABLE = "table"
"""The place that is no room."""

_ROOM_FORMS = (
    "In the {place} there is {things}.",
    "{a_place} with {things}.",
    "{things} in {a_place}.",
    "This {place} has {things}.",
)
_TABLE_FORMS = (
    "On the table there is {things}.",
    "A table with {things} on it.",
    "{things} on a table.",
    "There is {things} lying on the table.",
)
PHRASINGS = len(_ROOM_FORMS)
"""Ways of saying the same in English; each can name sides or not."""


def captions(facts: Facts, language: str, sides: bool = False) -> tuple[str, ...]:
    """Sentences that say the same: all phrasings in English, one in the other languages.

    Args:
        facts: what is seen.
        language: one of `LANGUAGES`.
        sides: whether each thing is said to be on the left, in the middle or on the right.

    Raises:
        ValueError: for another language, or a place or thing without a name.
    """
    if language not in LANGUAGES:
        raise ValueError(f"language must be one of {', '.join(LANGUAGES)}, got {language!r}")
    unknown = [thing.name for thing in facts.things if thing.name not in NOUNS]
    if unknown or facts.place not in PLACES:
        raise ValueError(f"no word for {(unknown or [facts.place])[0]!r}; see envs.captions.words")
    if language == "en":
        return tuple(_english(facts, form, sides) for form in range(PHRASINGS))
    return (_OTHERS[language](facts, sides),)


def _english(facts: Facts, form: int, sides: bool) -> str:
    parts = [_english_thing(thing) for thing in facts.things]
    things = _joined(_placed(parts, facts.things, "en", sides), "and")
    place = PLACES[facts.place].en
    forms = _TABLE_FORMS if facts.place == TABLE else _ROOM_FORMS
    values = {"place": place, "a_place": _with_article(place), "things": things}
    return _capital(forms[form].format(**values))


def _english_thing(thing: Thing) -> str:
    words = f"{thing.color} {NOUNS[thing.name].en}" if thing.color else NOUNS[thing.name].en
    return _with_article(words)


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _german(facts: Facts, sides: bool) -> str:
    parts = []
    for thing in facts.things:
        gender, noun = NOUNS[thing.name].de.split(" ", 1)
        words = [GERMAN_ARTICLES[gender]]
        if thing.color:
            stem = GERMAN_COLORS[thing.color]
            words.append(stem if stem in GERMAN_UNBENDING else stem + GERMAN_ENDINGS[gender])
        parts.append(" ".join([*words, noun]))
    things = _joined(_placed(parts, facts.things, "de", sides), "und")
    verb = "ist" if len(parts) == 1 else "sind"
    return f"{_capital(PLACES[facts.place].de)} {verb} {things} zu sehen."


def _french(facts: Facts, sides: bool) -> str:
    parts = []
    for thing in facts.things:
        gender, noun = NOUNS[thing.name].fr.split(" ", 1)
        words = [FRENCH_ARTICLES[gender], noun]
        if thing.color:
            words.append(FRENCH_COLORS[thing.color][gender == "f"])
        parts.append(" ".join(words))
    things = _joined(_placed(parts, facts.things, "fr", sides), "et")
    return f"{_capital(PLACES[facts.place].fr)}, il y a {things}."


def _czech(facts: Facts, sides: bool) -> str:
    parts = []
    for thing in facts.things:
        gender, noun = NOUNS[thing.name].cs.split(" ", 1)
        color = CZECH_COLORS[thing.color] + CZECH_ENDINGS[gender] if thing.color else ""
        parts.append(f"{color} {noun}".strip())
    things = _joined(_placed(parts, facts.things, "cs", sides), "a")
    verb = "je" if len(parts) == 1 else "jsou"
    return f"{_capital(PLACES[facts.place].cs)} {verb} {things}."


def _chinese(facts: Facts, sides: bool) -> str:
    parts = []
    for thing in facts.things:
        measure, noun = NOUNS[thing.name].zh.split(" ", 1)
        color = f"{CHINESE_COLORS[thing.color]}的" if thing.color else ""
        where = SIDE_WORDS["zh"][thing.side] if sides else ""
        parts.append(f"{where}{'有' if sides else ''}一{measure}{color}{noun}")
    place = PLACES[facts.place].zh
    if sides:
        return f"{place},{','.join(parts)}。".replace(",", "，")  # noqa: RUF001
    return f"{place}有{_joined(parts, '和', '、', '')}。"


_OTHERS: dict[str, Callable[[Facts, bool], str]] = {
    "de": _german,
    "fr": _french,
    "cs": _czech,
    "zh": _chinese,
}


def _placed(parts: Sequence[str], things: Sequence[Thing], language: str, sides: bool) -> list[str]:
    if not sides:
        return list(parts)
    words = SIDE_WORDS[language]
    return [f"{part} {words[thing.side]}" for part, thing in zip(parts, things, strict=True)]


def _joined(parts: Sequence[str], last: str, comma: str = ", ", space: str = " ") -> str:
    if len(parts) == 1:
        return parts[0]
    return f"{comma.join(parts[:-1])}{space}{last}{space}{parts[-1]}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
