"""`decisive retrieve --scene`: where in a house a robot has seen what a text or a picture asks."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from decisive.goal_views import CutConfig, GoalViews, cut
from decisive.page import PAGE, printable
from decisive.pictures import ACCENT, INK, PAPER, Pixels, font
from decisive.progress import progress
from decisive.retrieve_page import THUMBNAIL, Found, Sheet, page_text, thumbnail
from decisive.scenes import HouseScene, Place, read_place, viewpoint_place
from decisive.triage_images import NotReadable, read_picture
from learning.atomic import new_folder
from perception.mural.checkpoint import SHIPPED, load_mural
from robots.view_memory import Sight, ViewMemoryConfig

if TYPE_CHECKING:
    from decisive.retrieve import Arguments

ROWS = 256
"""Of the panoramas that the robot sees."""
_MAP = (620, 760)
_CUTS = CutConfig(size=160)


@dataclass(frozen=True)
class SeenView:
    """A view that was found.

    Attributes:
        rank: 1 is the best.
        viewpoint: number or name, as `--seen` takes it.
        position: `(x, y, z)` of the camera, metres, world frame.
        yaw: where it looks, radians counter-clockwise from +x.
        score: -1 to 1; scores order, they are no probabilities.
    """

    rank: int
    viewpoint: str
    position: tuple[float, float, float]
    yaw: float
    score: float

    @property
    def words(self) -> str:
        """For people."""
        x, y, _ = self.position
        return (
            f"viewpoint {self.viewpoint} at ({x:.1f}, {y:.1f}) m, looking "
            f"{math.degrees(self.yaw):.0f}° from +x"
        )


class Walked:
    """A house with what a robot saw from some of its places."""

    def __init__(self, scene: HouseScene, places: Sequence[Place], views: GoalViews) -> None:
        """Look around at each place.

        Args:
            scene: the house.
            places: where the robot has been.
            views: takes what it saw; its cells must tell the places apart.
        """
        self.scene, self.places, self.views = scene, places, views
        self.pictures: dict[str, Pixels] = {}
        with progress("places", len(places)) as meter:
            for place in places:
                seen = cut(scene.observe(place, (ROWS, 2 * ROWS)).rgb, _CUTS)
                x, y, z = place.position.tolist()
                sights = [Sight(x, y, z, yaw, label=place.label) for yaw in _CUTS.yaws]
                views.see(list(seen), sights)
                self.pictures |= {_key(s): picture for s, picture in zip(sights, seen, strict=True)}
                meter.advance(1)

    def answer(self, query: str | Pixels, top: int, by: Any = "colors") -> list[SeenView]:
        """The views that fit a text or a picture, best first."""
        if isinstance(query, str):
            ranking = self.views.ask(query, top)
        else:
            ranking = self.views.ask_picture(query, top, by)
        return [
            SeenView(rank, s.label, (s.x, s.y, s.z), s.yaw, score)
            for rank, (s, score) in enumerate(ranking, 1)
        ]

    def picture(self, view: SeenView) -> Pixels:
        """What was seen there."""
        return self.pictures[_key(Sight(*view.position, view.yaw, label=view.viewpoint))]


def run_house(arguments: Arguments, command: str) -> int:
    """Answer `decisive retrieve ... --scene`."""
    from decisive.retrieve import check_out

    out = None if arguments.out is None else check_out(Path(arguments.out), None)
    scene = HouseScene(str(arguments.scene))
    places = read_places(scene, arguments.seen)
    model = load_mural(arguments.model)
    query = arguments.text or ""
    if arguments.image is None and not model.model.tokenizer.split(query):
        raise ValueError(f"TEXT has no word: {query[:40]!r}; say what to look for")
    asked = query if arguments.image is None else _read(arguments.image, model.model.config.size)
    views = GoalViews(model, ViewMemoryConfig(cell=0.01, headings=_CUTS.views))
    walked = Walked(scene, places, views)
    found = walked.answer(asked, arguments.top, arguments.by)
    notes = model.model.tokenizer.notes(query) if arguments.image is None else ()
    told: dict[str, Any] = {
        "query": query or arguments.image,
        "scene": scene.name,
        "seen": [place.label for place in places],
        "ranking": [asdict(view) for view in found],
        "n": len(views),
        "notes": list(notes),
        "model": arguments.model or SHIPPED,
        "out": None if out is None else str(out),
    }
    if out is not None:
        sheet = _sheet(walked, found, told, command, None if isinstance(asked, str) else asked)
        with new_folder(out) as beside:
            (beside / PAGE).write_bytes(page_text(sheet).encode("utf-8", "backslashreplace"))
    scene.close()
    _tell(arguments.json, told, found, out)
    return 0


def read_places(scene: HouseScene, words: str | None) -> list[Place]:
    """Places of `--seen`, each once; all viewpoints for None.

    Raises:
        ValueError: for what is no place of the house.
    """
    if words is None:
        return [viewpoint_place(scene.graph, k) for k in range(len(scene.graph))]
    found = [read_place(scene.graph, word) for word in words.split(",")]
    for place in found:
        if place.viewpoint is None and not scene.house.free(place.position):
            raise ValueError(f"{scene.name}: nobody can stand at {place.label}")
    return list({tuple(place.position.tolist()): place for place in found}.values())


def draw_map(scene: HouseScene, places: Sequence[Place], found: Sequence[SeenView]) -> Pixels:
    """The house from above: where the robot has been, and the answers with their headings."""
    from PIL import Image, ImageDraw

    from decisive.dream_pictures import FloorMap

    floor = FloorMap(scene.graph, scene.house, _MAP)
    image = Image.fromarray(floor.pixels)
    draw = ImageDraw.Draw(image)
    for place in places:
        x, y = floor.point(place.position)
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=PAPER, outline=INK)
    for view in reversed(found):
        _mark(draw, *floor.point(np.array(view.position)), view)
    return np.asarray(image)


def _mark(draw: Any, x: float, y: float, view: SeenView) -> None:
    """From where it was seen to where it looks, the rank on the way; +y is up."""
    cos, sin = math.cos(view.yaw), -math.sin(view.yaw)

    def at(ahead: float, aside: float = 0.0) -> tuple[float, float]:
        return x + ahead * cos + aside * sin, y + ahead * sin - aside * cos

    draw.line((x, y, *at(28)), fill=PAPER, width=6)
    draw.line((x, y, *at(28)), fill=ACCENT, width=4)
    draw.polygon((at(50), at(36, 8), at(36, -8)), fill=ACCENT, outline=PAPER)
    draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=ACCENT, outline=PAPER)
    u, v = at(30)
    draw.ellipse((u - 10, v - 10, u + 10, v + 10), fill=ACCENT, outline=PAPER, width=2)
    draw.text((u, v), str(view.rank), fill=PAPER, font=font(12, True), anchor="mm")


def _sheet(
    walked: Walked,
    found: Sequence[SeenView],
    told: dict[str, Any],
    command: str,
    picture: Pixels | None,
) -> Sheet:
    return Sheet(
        query=told["query"],
        picture=None if picture is None else thumbnail(picture),
        place=f"{told['scene']}, {len(told['seen'])} viewpoints",
        model=told["model"],
        found=[Found(view.words, view.score, walked.picture(view)) for view in found],
        n=told["n"],
        skipped={},
        notes=told["notes"],
        command=command,
        plan=draw_map(walked.scene, walked.places, found),
    )


def _key(sight: Sight) -> str:
    return f"{sight.label} {sight.yaw:.6f}"


def _read(path: str, side: int) -> Pixels:
    try:
        return read_picture(Path(path), max(side, THUMBNAIL)).pixels
    except NotReadable as reason:
        raise ValueError(f"{printable(path)}: {printable(str(reason))}") from None


def _tell(as_json: bool, told: dict[str, Any], found: Sequence[SeenView], out: Path | None) -> None:
    if as_json:
        print(json.dumps(told, indent=2))
        return
    for view in found:
        print(f"{view.rank:>5}  {view.score:+.3f}  {view.words}")
    for note in told["notes"]:
        print(f"note: {note}")
    print(f"{told['n']:,} views from {len(told['seen'])} places of {told['scene']} looked at")
    if out is not None:
        print(out / PAGE)
