"""What stands in a room of each purpose, and by which rule."""

from typing import NamedTuple

Size = tuple[float, float, float]


class Rule(NamedTuple):
    """One kind of furniture in one kind of room.

    Attributes:
        kind: key of `envs.indoor.furniture.KINDS`.
        sizes: width, depth and height in metres; the first that fits is taken.
        where: "opposite" (the wall opposite to the door), "window", "corner", "centre" (of a
            wall), "anywhere", "free" (middle of the room), or, X being what stands already, "by X",
            "facing X", "over X" (same wall), "before X" (in front), "around X", "under X".
        front: metres that must stay free in front of it.
        chance: probability that it is there, if it fits.
        base: height of its lower edge in metres.
        number: how many.
    """

    kind: str
    sizes: tuple[Size, ...]
    where: str
    front: float = 0.5
    chance: float = 1.0
    base: float = 0.0
    number: int = 1


PICTURE = Rule("picture", ((0.9, 0.03, 0.65), (0.5, 0.03, 0.6)), "centre", 0.0, 0.8, 1.35)
PLANT = Rule("plant", ((0.55, 0.55, 1.3), (0.4, 0.4, 0.9)), "corner", 0.0, 0.6)

RULES: dict[str, tuple[Rule, ...]] = {
    "living room": (
        Rule("sofa", ((2.1, 0.92, 0.85), (1.55, 0.88, 0.85)), "opposite", 0.9),
        Rule("tv stand", ((1.6, 0.42, 1.28), (1.1, 0.4, 1.1)), "facing sofa", 0.5, 0.9),
        Rule("coffee table", ((1.1, 0.6, 0.42), (0.7, 0.5, 0.42)), "before sofa"),
        Rule("rug", ((2.6, 1.9, 0.012), (1.6, 1.2, 0.012)), "before sofa", 0.0, 0.9),
        Rule("fireplace", ((1.5, 0.4, 1.15),), "centre", 0.6, 0.5),
        Rule("armchair", ((0.85, 0.85, 0.85),), "by sofa", 0.4, 0.8, number=2),
        Rule("bookcase", ((1.2, 0.34, 2.0), (0.8, 0.34, 1.9)), "corner", 0.5, 0.7),
        Rule("floor lamp", ((0.42, 0.42, 1.6),), "corner", 0.0, 0.7),
        Rule("column", ((0.35, 0.35, 2.5),), "corner", 0.0, 0.15),
        PLANT,
        Rule("picture", ((1.2, 0.03, 0.8), (0.7, 0.03, 0.5)), "over sofa", 0.0, 0.9, 1.3),
        PICTURE,
    ),
    "kitchen": (
        Rule("kitchen sink", ((1.0, 0.62, 0.9), (0.8, 0.6, 0.9)), "window", 0.7),
        Rule("stove", ((0.62, 0.62, 0.9),), "by kitchen sink", 0.7),
        Rule("fridge", ((0.75, 0.7, 1.85), (0.62, 0.62, 1.75)), "corner", 0.6),
        Rule("counter", ((1.0, 0.62, 0.9), (0.55, 0.62, 0.9)), "by kitchen sink", 0.6, number=4),
        Rule("island", ((1.6, 0.85, 0.92), (1.1, 0.7, 0.92)), "free", 0.0, 0.8),
        Rule("table", ((0.9, 0.75, 0.75),), "centre", 0.4, 0.35),
        Rule("stool", ((0.36, 0.36, 0.66),), "around island", 0.0, 0.9, number=3),
        Rule(
            "upper cabinets", ((1.0, 0.34, 0.7), (0.5, 0.34, 0.7)), "over counter",
            0.0, 0.9, 1.45, 3,
        ),
        Rule("plant", ((0.4, 0.4, 0.9),), "corner", 0.0, 0.3),
    ),
    "dining room": (
        Rule(
            "dining table",
            ((1.9, 0.95, 0.75), (1.3, 0.85, 0.75), (0.9, 0.8, 0.75), (0.8, 0.6, 0.75)),
            "free", 0.0,
        ),
        Rule("chair", ((0.44, 0.44, 0.95),), "around dining table", 0.0, number=6),
        Rule("sideboard", ((1.6, 0.42, 0.85), (1.0, 0.4, 0.85)), "opposite", 0.5),
        Rule("rug", ((2.8, 2.0, 0.012),), "under dining table", 0.0, 0.6),
        PLANT,
        PICTURE,
        PICTURE,
        Rule("mirror", ((0.8, 0.03, 0.9),), "over sideboard", 0.0, 0.5, 1.15),
    ),
    "bedroom": (
        Rule(
            "bed",  # low enough to stand below a window
            ((1.65, 2.08, 0.86), (1.4, 2.05, 0.86), (0.95, 2.0, 0.86), (0.85, 1.9, 0.8),
             (0.75, 1.55, 0.7)),
            "opposite", 0.5,
        ),
        Rule("nightstand", ((0.45, 0.4, 0.52),), "by bed", 0.0, 0.95, number=2),
        Rule("wardrobe", ((1.5, 0.6, 2.1), (1.0, 0.58, 2.0)), "corner", 0.6, 0.9),
        Rule("chest", ((1.1, 0.46, 0.85), (0.8, 0.44, 0.85)), "facing bed", 0.5, 0.7),
        Rule("mirror", ((0.7, 0.03, 0.85),), "over chest", 0.0, 0.8, 1.05),
        Rule("armchair", ((0.78, 0.78, 0.8),), "window", 0.4, 0.35),
        Rule("rug", ((2.3, 1.5, 0.012), (1.6, 0.8, 0.012)), "before bed", 0.0, 0.6),
        Rule("picture", ((1.1, 0.03, 0.6), (0.6, 0.03, 0.5)), "over bed", 0.0, 0.85, 1.4),
        PLANT,
    ),
    "bathroom": (
        Rule("toilet", ((0.4, 0.68, 0.8),), "corner", 0.5),
        Rule("vanity", ((0.9, 0.5, 0.88), (0.6, 0.46, 0.88)), "centre", 0.6),
        Rule("mirror", ((0.7, 0.03, 0.8), (0.5, 0.03, 0.8)), "over vanity", 0.0, 1.0, 1.15),
        Rule("bathtub", ((1.65, 0.75, 0.58),), "opposite", 0.4, 0.8),
        Rule("shower", ((0.9, 0.9, 2.1), (0.8, 0.8, 2.1)), "corner", 0.5, 0.75),
        Rule("towel", ((0.5, 0.06, 0.8),), "by vanity", 0.0, 0.9, 0.7),
        Rule("rack", ((0.5, 0.34, 1.3),), "corner", 0.3, 0.3),
        Rule("rug", ((0.9, 0.6, 0.012),), "free", 0.0, 0.7),
    ),
    "office": (
        Rule("desk", ((1.5, 0.72, 0.74), (1.2, 0.65, 0.74)), "window", 0.85),
        Rule("desk chair", ((0.55, 0.55, 1.05),), "before desk"),
        Rule("bookcase", ((1.2, 0.34, 2.0), (0.8, 0.34, 1.9)), "opposite", 0.5, number=2),
        Rule("board", ((1.1, 0.03, 0.8), (0.7, 0.03, 0.6)), "centre", 0.0, 0.8, 1.2),
        Rule("armchair", ((0.8, 0.8, 0.82),), "corner", 0.4, 0.4),
        PLANT,
        Rule("rug", ((1.8, 1.3, 0.012),), "free", 0.0, 0.4),
        PICTURE,
    ),
    "laundry room": (
        Rule("washer", ((0.62, 0.64, 0.86),), "opposite", 0.6),
        Rule("washer", ((0.62, 0.64, 0.86),), "by washer", 0.6),
        Rule("kitchen sink", ((0.8, 0.58, 0.9),), "by washer", 0.6, 0.8),
        Rule("rack", ((1.2, 0.4, 1.8), (0.8, 0.36, 1.8)), "corner", 0.5, 0.9),
        Rule("basket", ((0.46, 0.46, 0.55),), "corner", 0.0, number=2),
        Rule("upper cabinets", ((1.0, 0.34, 0.7),), "over washer", 0.0, 0.6, 1.45),
    ),
    "gym": (
        Rule("treadmill", ((0.78, 1.75, 1.35),), "window", 0.4, number=2),
        Rule("weights", ((1.4, 0.5, 0.95), (0.9, 0.5, 0.95)), "opposite", 0.7),
        Rule("gym bench", ((0.4, 1.2, 0.46),), "free", 0.0),
        Rule("mirror", ((1.6, 0.03, 1.6), (0.9, 0.03, 1.6)), "centre", 0.0, 0.95, 0.4),
        Rule("rug", ((1.9, 0.8, 0.012),), "free", 0.0, 0.8),
        PLANT,
    ),
    "closet": (
        Rule("clothes rail", ((1.7, 0.5, 1.9), (1.1, 0.5, 1.9)), "opposite", 0.4, number=2),
        Rule("rack", ((1.2, 0.4, 2.0), (0.7, 0.36, 2.0)), "corner", 0.4),
        Rule("chest", ((0.8, 0.44, 0.9),), "centre", 0.4, 0.6),
        Rule("mirror", ((0.5, 0.03, 1.5),), "centre", 0.0, 0.8, 0.3),
        Rule("bench", ((0.9, 0.4, 0.46),), "free", 0.0, 0.4),
    ),
    "hallway": (
        Rule("sideboard", ((1.1, 0.3, 0.82),), "centre", 0.0, 0.5),
        Rule("bench", ((1.0, 0.34, 0.46),), "corner", 0.0, 0.5),
        Rule("plant", ((0.38, 0.38, 1.1),), "corner", 0.0, 0.7),
        Rule("mirror", ((0.5, 0.03, 1.1),), "centre", 0.0, 0.5, 0.85),
        PICTURE,
        PICTURE,
        PICTURE,
        Rule("rug", ((2.4, 0.8, 0.012), (1.4, 0.7, 0.012)), "free", 0.0, 0.6),
    ),
}  # fmt: skip
"""Furniture of each purpose in the order in which it is placed."""

LAMPS: dict[str, str] = {"dining room": "pendant", "living room": "pendant", "office": "pendant"}
"""Kind of the lamp at the ceiling where it is no plain one."""

WINDOWS: dict[str, str] = {
    "living room": "curtain", "dining room": "curtain", "bedroom": "curtain",
    "kitchen": "blinds", "office": "blinds", "bathroom": "blinds",
}  # fmt: skip
"""What hangs at windows."""

ABOVE: dict[str, float] = {
    "stove": 1.5, "desk": 0.6, "nightstand": 0.5, "sideboard": 0.28, "vanity": 0.2, "bathtub": 0.4,
    "kitchen sink": 0.32, "fireplace": 0.1,
}  # fmt: skip
"""How far the bodies of some kinds reach above their stated height, in metres."""
