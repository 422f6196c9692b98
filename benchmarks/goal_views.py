"""Where has a robot seen this? Goal views in houses, by texts in five languages and by pictures.

    OMP_NUM_THREADS=1 python -m benchmarks.goal_views \
        --out docs/benchmarks/retrieval/goal-views.json

Every viewpoint of a procedural house (`test`) has a panorama, cut into views of 12 headings; the
memory holds them all. Asked for are things and rooms that are truly seen, by the renderer's ids, in
the words of `envs.captions`, and places by a picture that another camera has taken up to a metre
from a viewpoint in any heading, in the same and in another light. Counted is the first answer: does
it show the thing or the room, and how far is it to walk from there to the nearest viewpoint that
does; of pictures, is it within 2 m of the other camera and shows the same room. Beside it stand
chance (the mean over all views), the dot product of the embeddings alone, embeddings of pictures,
and colour histograms as they are commonly used. Intervals are over houses, drawn whole. Writes a
Markdown file of the same name too.
"""

from __future__ import annotations

import argparse
import json
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from decisive import provenance
from decisive.goal_views import CutConfig, GoalViews, cut
from decisive.scenes import HouseScene
from decisive.statistics import resampled_means
from envs.captions.facts import Facts
from envs.captions.house_sights import SIZE, Asked, Sights, survey
from envs.captions.house_views import glimpse, picture
from envs.captions.sentences import captions
from envs.captions.words import LANGUAGES, PLACES
from learning.atomic import write_file
from perception.mural.checkpoint import SHIPPED, SavedMural, load_mural
from robots.color_look import color_look
from robots.view_memory import Sight, ViewMemoryConfig

_DRAWS = 2_000
_SAME = 2.0  # Metres from the other camera within which an answer is its place.
_OFF = 1.0  # Metres from a viewpoint, in x and in y, at which the other camera stands at most.
_EXPOSURE, _BALANCE = 0.25, 0.1  # Greatest change of all channels and of each, natural logarithm.


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        houses: how many, from number 0 on.
        split: of `envs.indoor.house.SPLITS`.
        things: questions for things in each house; rooms are all asked for.
        pictures: goal pictures in each house.
        views: headings at every viewpoint.
        rows: of a panorama.
        seed: of what is asked and where cameras stand.
    """

    houses: int = 60
    split: str = "test"
    things: int = 12
    pictures: int = 12
    views: int = 12
    rows: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a study of nothing."""
        for name in ("houses", "things", "pictures", "views"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


class Row(NamedTuple):
    """One answer.

    Attributes:
        house: in which it was asked.
        kind: thing, room, picture or picture in another light.
        arm: who answered.
        language: of the question; empty for pictures.
        right: whether the first answer is, or the probability of it.
        metres: to the nearest right place; from the camera for pictures.
    """

    house: str
    kind: str
    arm: str
    language: str
    right: float
    metres: float


class House:
    """A house with everything that was seen in it."""

    def __init__(self, name: str, model: SavedMural, plan: Plan) -> None:
        """Look around from every viewpoint."""
        self.scene, self.model = HouseScene(name), model
        self.graph = self.scene.graph
        config = CutConfig(plan.views)
        self.sights: Sights = survey(self.scene.simulator, config.yaws)
        size = (plan.rows, 2 * plan.rows)
        panoramas = (self.scene.simulator.observe(v, size).rgb for v in self.graph.viewpoints)
        self.pictures = np.concatenate([cut(rgb, config) for rgb in panoramas])
        self.places = np.repeat(np.arange(len(self.graph)), plan.views)
        # A cell for every viewpoint and heading; the label is the number of the view.
        self.views = GoalViews(model, ViewMemoryConfig(cell=0.01, headings=plan.views))
        seen = [
            Sight(*self.graph.positions[place].tolist(), config.yaws[k % plan.views], 0, str(k))
            for k, place in enumerate(self.places)
        ]
        kept = self.views.see(list(self.pictures), seen)
        assert kept == len(self.views) == len(seen)
        self.embedded = model.embed_images(self.pictures).numpy()

    def texts(self, plan: Plan, rng: np.random.Generator) -> Iterator[Row]:
        """Rows of the questions in words."""
        things = [asked for asked in self.sights.asked if asked.thing is not None]
        chosen = rng.permutation(len(things))[: plan.things].tolist()
        rooms = [asked for asked in self.sights.asked if asked.thing is None]
        for asked in [*(things[k] for k in chosen), *rooms]:
            kind = "room" if asked.thing is None else "thing"
            right = self.sights.shows(asked).ravel()
            way = self.graph.distances[:, np.unique(self.places[right])].min(1)[self.places]
            name = self.graph.scan
            yield Row(name, kind, "chance", "", float(right.mean()), float(way.mean()))
            for language in LANGUAGES:
                words = question(asked, language)
                query = self.model.embed_text([words])[0].numpy()
                plain = int((self.embedded @ query).argmax())
                for arm, k in (("goal views", self._first(words)), ("dot product", plain)):
                    yield Row(name, kind, arm, language, float(right[k]), float(way[k]))

    def _first(self, words: str) -> int:
        return int(self.views.ask(words, 1)[0].sight.label)

    def images(self, plan: Plan, rng: np.random.Generator) -> Iterator[Row]:
        """Rows of the questions by pictures."""
        where, rooms = self.graph.positions[self.places], self.sights.rooms.ravel()
        common = np.stack([histogram(view) for view in self.pictures])
        for _ in range(plan.pictures):
            position = self._standing(rng)
            seen = glimpse(self.scene.simulator, position, float(rng.uniform(0, 2 * np.pi)), SIZE)
            taken = picture(self.scene.simulator, seen)
            metres = np.linalg.norm(where - position, axis=1)
            right = (metres <= _SAME) & (rooms == seen.room)
            gain = np.exp(rng.uniform(-_EXPOSURE, _EXPOSURE) + rng.uniform(-_BALANCE, _BALANCE, 3))
            other = np.minimum(taken * gain, 255.0).astype(np.uint8)
            for kind, pixels in (("picture", taken), ("picture, other light", other)):
                answers = {
                    "goal views": int(self.views.ask_picture(pixels, 1)[0].sight.label),
                    "embedding": int(self.views.ask_picture(pixels, 1, "meaning")[0].sight.label),
                    "colour histogram": int((common @ histogram(pixels)).argmax()),
                }
                name = self.graph.scan
                yield Row(name, kind, "chance", "", float(right.mean()), float(metres.mean()))
                for arm, k in answers.items():
                    yield Row(name, kind, arm, "", float(right[k]), float(metres[k]))

    def _standing(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Where another camera can stand, not at a viewpoint."""
        while True:
            near = self.graph.positions[rng.integers(len(self.graph))]
            position = near + np.append(rng.uniform(-_OFF, _OFF, 2), 0.0)
            if self.scene.house.free(position):
                return position

    def close(self) -> None:
        """Free the house."""
        self.scene.close()


def question(asked: Asked, language: str) -> str:
    """The words that ask for something: a caption of it alone, or the place."""
    if asked.thing is not None:
        return captions(Facts(asked.place, (asked.thing,)), language)[0]
    place: str = getattr(PLACES[asked.place], language)
    return f"the {place}" if language == "en" else place


def histogram(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Square roots of the shares of 64 colours in the whole picture, as it is."""
    parts = color_look(pixels, balanced=False).reshape(3, -1) ** 2
    return np.sqrt(parts.sum(0))


def table(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Means with 95 % intervals by kind, arm and language."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.kind, row.arm, row.language), []).append(row)
    told = []
    for (kind, arm, language), own in found.items():
        values = np.array([[row.right, row.metres] for row in own])
        drawn = resampled_means(values, [row.house for row in own], _DRAWS)
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        told.append({
            "kind": kind, "arm": arm, "language": language, "n": len(own),
            "right": values[:, 0].mean(), "right_ci95": [low[0], high[0]],
            "metres": values[:, 1].mean(), "metres_ci95": [low[1], high[1]],
        })  # fmt: skip
    return told


def markdown(told: Sequence[dict[str, Any]], result: dict[str, Any]) -> str:
    """The tables for people."""
    plan = result["plan"]
    lines = [
        "# Where has a robot seen this?",
        "",
        f"{plan['houses']} synthetic houses of `{plan['split']}`, {result['views']:,} views of "
        f"{plan['views']} headings from every viewpoint; the first answer, in % right and in "
        "metres to the nearest right place, with 95 % intervals over houses.",
        "",
        "```",
        result["command"],
        "```",
    ]
    for kind, title in (
        ("thing", "Things: the view shows it"), ("room", "Rooms: it fills most of the view"),
    ):  # fmt: skip
        own = [row for row in told if row["kind"] == kind]
        lines += ["", f"## {title}", "", f"{own[0]['n']} questions in each language.", ""]
        lines += _rows(own, ("goal views", "dot product", "chance"), ("", *LANGUAGES))
    lines += ["", "## Goal pictures: within 2 m, and the same room", ""]
    own = [row for row in told if row["kind"].startswith("picture")]
    lines += [f"{own[0]['n']} pictures in each light.", ""]
    lines += ["| answered by | same light | other light |", "|---|---|---|"]
    for arm in ("goal views", "embedding", "colour histogram", "chance"):
        cells = [_cell(row) for row in own if row["arm"] == arm]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    made = f"{result['cpu_seconds']:.0f} CPU-seconds, {result['machine']['cpu']}"
    lines += ["", _NOTE, "", f"{made}; commit {result['commit']}.", ""]
    return "\n".join(lines)


_NOTE = (
    "Metres are along the graph, of pictures straight from the camera. Other light: the pixels of "
    "the goal picture times 0.78 to 1.28, each channel times 0.9 to 1.1 besides, cut off at white. "
    "`dot product`: without taking off what all captions have in common. `colour histogram`: 64 "
    "colours of the whole picture, as it is. Houses, pictures and questions are synthetic."
)


def _rows(
    own: Sequence[dict[str, Any]], arms: Sequence[str], languages: Sequence[str]
) -> list[str]:
    shown = [language for language in languages if language]
    lines = [f"| answered by | {' | '.join(shown)} |", "|---" * (len(shown) + 1) + "|"]
    for arm in arms:
        by = {row["language"]: _cell(row) for row in own if row["arm"] == arm}
        cells = [by.get(language, by.get("", "")) for language in shown]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return lines


def _cell(row: dict[str, Any]) -> str:
    low, high = (100 * value for value in row["right_ci95"])
    return f"{100 * row['right']:.1f} [{low:.1f}, {high:.1f}], {row['metres']:.1f} m"


def study(plan: Plan, model: SavedMural) -> tuple[list[Row], int]:
    """All rows, and how many views there were."""
    rows: list[Row] = []
    views = 0
    for number in range(plan.houses):
        rng = np.random.default_rng((plan.seed, number))
        house = House(f"house_{plan.split}_{number:06d}", model, plan)
        views += len(house.views)
        rows += [*house.texts(plan, rng), *house.images(plan, rng)]
        house.close()
    return rows, views


def command(plan: Plan, model: str) -> str:
    """What makes these numbers again."""
    words = [
        f"--{name} {value}"
        for name, value in asdict(plan).items()
        if name in ("houses", "split") or value != asdict(Plan())[name]
    ]
    words += [] if model == SHIPPED else [f"--model {shlex.quote(model)}"]
    return " ".join(["OMP_NUM_THREADS=1 python -m benchmarks.goal_views", *words])


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for name, value in asdict(Plan()).items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    parser.add_argument("--model", default=SHIPPED)
    parser.add_argument("--out", type=Path)
    options = vars(parser.parse_args(argv))
    out, model = options.pop("out"), options.pop("model")
    plan, began = Plan(**options), time.process_time()
    rows, views = study(plan, load_mural(model))
    told = table(rows)
    result = {
        "plan": asdict(plan), "model": model, "views": views,
        "command": command(plan, model), "table": told,
        "cpu_seconds": time.process_time() - began, "machine": provenance.machine(),
        "versions": provenance.versions(), "commit": provenance.commit(),
    }  # fmt: skip
    text = markdown(told, result)
    if out is not None:
        write_file(out, (json.dumps(result, indent=2) + "\n").encode())
        write_file(out.with_suffix(".md"), text.encode())
    print(text)


if __name__ == "__main__":
    main()
