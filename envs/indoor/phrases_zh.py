"""Ways of talking about a walk through a house, in Chinese.

Rooms, furniture and sides are called as in captions (`envs.captions.words`); what those never show
has its name here. The keys of the clauses are those of `envs.indoor.phrases`.
"""

from envs.captions.words import NOUNS, PLACES, SIDE_WORDS
from envs.indoor.phrases import Manner

_BRIEF = Manner(
    clauses={
        "turn side": ("{side}转", "向{side}转"),
        "turn around": ("掉头", "向后转"),
        "leave": ("走出{room}", "离开{room}"),
        "leave side": ("{side}转走出{room}", "从{side}边离开{room}"),
        "leave around": ("转身走出{room}", "掉头离开{room}"),
        "enter": ("进入{room}", "走进{room}"),
        "enter side": ("{side}转进入{room}", "走进{side}边的{room}"),
        "enter around": ("转身进入{room}",),
        "pass": ("经过{noun}", "经过{side}边的{noun}"),
        "toward": ("朝{noun}走", "走向{noun}"),
        "stop at": ("在{noun}旁停下", "停在{noun}旁边"),
        "stop at side": ("停在{noun}旁边", "停在{side}边的{noun}旁"),
        "stop in": ("停在{room}里",),
    },
    joints=("，", "。"),  # noqa: RUF001
    last=("，", "，最后"),  # noqa: RUF001
)

_CHATTY = Manner(
    clauses={
        "turn side": ("往{side}拐", "朝{side}边转个弯"),
        "turn around": ("转过身来", "掉个头"),
        "leave": ("从{room}里出来", "直接从{room}里走出来"),
        "leave side": ("往{side}拐，从{room}里出来", "从{side}手边的门走出{room}"),  # noqa: RUF001
        "leave around": ("转过身，从{room}里出来",),  # noqa: RUF001
        "enter": ("走到{room}里去", "往{room}里走"),
        "enter side": ("往{side}拐，走到{room}里去", "从{side}手边的门走进{room}"),  # noqa: RUF001
        "enter around": ("转过身，走到{room}里去",),  # noqa: RUF001
        "pass": ("从{side}手边的{noun}旁走过去", "路过你{side}手边的{that}"),
        "toward": ("朝着{that}走过去", "往{noun}那边走"),
        "stop at": ("在{noun}旁边等着", "走到{that}跟前就停下"),
        "stop at side": ("在{noun}旁边等着", "等{that}到了你{side}手边就停下"),
        "stop in": ("就在{room}里等着", "到了{room}里就停下"),
    },
    joints=("，然后", "，再", "，", "。接着"),  # noqa: RUF001
    last=("，最后", "。然后", "，"),  # noqa: RUF001
)

_FORMAL = Manner(
    clauses={
        "turn side": ("向{side}转弯", "转向{side}侧"),
        "turn around": ("调转方向", "转身向后"),
        "leave": ("从{room}出去", "走到{room}外"),
        "leave side": ("向{side}走出{room}", "从{side}侧离开{room}"),
        "leave around": ("调转方向，从{room}出去",),  # noqa: RUF001
        "enter": ("继续前行进入{room}", "走入{room}"),
        "enter side": ("向{side}走入{room}", "由{side}侧的门进入{room}"),
        "enter around": ("调转方向，走入{room}",),  # noqa: RUF001
        "pass": ("继续前行，经过{noun}", "继续前行，经过{side}侧的{noun}"),  # noqa: RUF001
        "toward": ("朝{noun}的方向前行", "径直走向{noun}"),
        "stop at": ("在{noun}旁停步", "停在{room}的{noun}旁"),
        "stop at side": (
            "停在{room}的{noun}旁",
            "停在{room}里，让{that}位于{side}侧",  # noqa: RUF001
        ),
        "stop in": ("在{room}内停下",),
    },
    joints=("；", "。", "，"),  # noqa: RUF001
    last=("；", "。", "，最后"),  # noqa: RUF001
)

MANNERS: tuple[Manner, ...] = (_BRIEF, _CHATTY, _FORMAL)
"""All ways of talking; beside `{room}`, `{noun}` and `{side}` there is `{that}`: the noun after
"that" and its measure word."""

_THINGS = {
    **{noun.en: noun.zh for noun in NOUNS.values()},
    "shelves": NOUNS["shelf"].zh,
    "picture": "幅 挂画",
    "clothes": "排 衣服",
    "counter": "张 料理台",
    "wall cabinets": "排 吊柜",
    "ceiling lamp": "盏 吸顶灯",
    "hanging lamp": "盏 吊灯",
    "curtains": "幅 窗帘",
    "blinds": "扇 百叶窗",
    "front door": "扇 大门",
    "rack of weights": "个 哑铃架",
}
"""Measure word and name by the English noun."""

_OTHER = "other "


def room_name(room: str) -> str:
    """What a room is called, such as 另一间卧室 for "other bedroom"; "" for none.

    Raises:
        ValueError: for a room without a Chinese name.
    """
    if not room:
        return ""
    purpose = room.removeprefix(_OTHER)
    if purpose not in PLACES:
        raise ValueError(f"no Chinese word for the room {room!r}; see envs.captions.words.PLACES")
    name = PLACES[purpose].zh.removesuffix("里")
    if purpose == room:
        return name
    return f"另一{'条' if purpose == 'hallway' else '间'}{name}"


def thing_name(noun: str) -> tuple[str, str]:
    """Measure word and name of a thing, both "" for none.

    Raises:
        ValueError: for a thing without a Chinese name.
    """
    if not noun:
        return "", ""
    if noun not in _THINGS:
        raise ValueError(f"no Chinese word for {noun!r}; give it one in envs.indoor.phrases_zh")
    measure, name = _THINGS[noun].split(" ", 1)
    return measure, name


def fill(room: str, noun: str, side: str) -> dict[str, str]:
    """What the fields of a clause hold, from the English words of a fact."""
    measure, name = thing_name(noun)
    words = {key: word.removesuffix("边") for key, word in SIDE_WORDS["zh"].items()}
    return {
        "room": room_name(room),
        "noun": name,
        "that": f"那{measure}{name}",
        "side": words.get(side, ""),
    }
