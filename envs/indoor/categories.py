"""The 40 object categories of Matterport3D ("mpcat40", Chang et al. 2017), by id; 0 is void."""

CATEGORIES: tuple[str, ...] = (
    "void", "wall", "floor", "chair", "door", "table", "picture", "cabinet", "cushion", "window",
    "sofa", "bed", "curtain", "chest_of_drawers", "plant", "sink", "stairs", "ceiling", "toilet",
    "stool", "towel", "mirror", "tv_monitor", "shower", "column", "bathtub", "counter",
    "fireplace", "lighting", "beam", "railing", "shelving", "blinds", "gym_equipment", "seating",
    "board_panel", "furniture", "appliances", "clothes", "objects", "misc",
)  # fmt: skip
"""Names; the position is the id that panoramas hold."""

ID: dict[str, int] = {name: index for index, name in enumerate(CATEGORIES)}
"""Id of a name."""
