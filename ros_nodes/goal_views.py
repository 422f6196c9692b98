"""`goal_views`: where has the robot seen what a text, or a picture, asks for?

While the robot moves, pictures of its camera are remembered with their poses, one for each cell of
position and heading. A text in any language, or a picture, is answered by the pose of the best view
and by a ranking. Pictures are looked at in one thread and questions in another; of each the newest
counts. It commands nothing.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

from decisive.goal_views import BY, CutConfig, GoalViews
from decisive.statistics import median_and_p95
from perception.mural.checkpoint import SHIPPED, load_mural
from robots.streaming import Outcome, Worker
from robots.view_memory import Recalled, ViewMemoryConfig
from ros_nodes import messages
from ros_nodes.goal_view_input import VIEW_PARAMETERS, Shot, ViewInput
from ros_nodes.navigation_messages import level_turn
from ros_nodes.parameters import Parameter, declare
from ros_nodes.picture_input import read_picture
from ros_nodes.running import RELIABLE, diagnostics, run

PARAMETERS = (
    Parameter("model", SHIPPED, "embeds pictures and texts: shipped name or checkpoint folder"),
    Parameter("cell", 0.5, "metres of a cell, of which the newest view of a heading is kept", 0.01,
              100.0),
    Parameter("headings", 12, "of a cell", 1, 360),
    Parameter("most", 5000, "views that are kept; those seen longest ago go first", 1, 1_000_000),
    Parameter("answers", 5, "views in a ranking", 1, 100),
    Parameter("by", "colors", "what of a goal picture counts: colors finds its place, meaning one "
              "with the same things", choices=BY),
    *VIEW_PARAMETERS,
)  # fmt: skip
COUNTS = (
    "pictures", "remembered", "changed", "questions", "answered", "refused", "malformed", "errors",
)  # fmt: skip
_ECHO = 1000  # Letters of a question that the answer repeats.


@dataclass(frozen=True)
class Question:
    """What is asked for: a text or a picture.

    Attributes:
        text: None for a picture.
        pixels: `(H, W, 3)`; None for a text.
    """

    text: str | None = None
    pixels: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Answer:
    """Views by how well they fit, their frame, how many there are, and what was not read."""

    ranking: list[Recalled]
    frame: str
    held: int
    notes: tuple[str, ...] = ()


class OtherFrame(ValueError):
    """A pose in another frame than those before."""


class GoalViewsNode(Node):
    """Shell around `GoalViews`."""

    def __init__(self, **options: Any) -> None:
        """Declare the parameters, load the model, open the topics."""
        super().__init__("goal_views", **options)
        self.value = value = declare(self, PARAMETERS)
        torch.set_num_threads(1)
        config = ViewMemoryConfig(value["cell"], value["headings"], value["most"])
        self._views = GoalViews(load_mural(value["model"]), config)
        self._cuts = CutConfig(value["views"])
        self._lock = threading.Lock()  # of the views and their frame
        self._frame = ""
        self._counts: dict[str, int] = dict.fromkeys(COUNTS, 0)
        self._times: deque[float] = deque(maxlen=200)
        self._told = 0
        self._goal = self.create_publisher(PoseStamped, "~/goal", RELIABLE)
        self._ranking = self.create_publisher(String, "~/ranking", RELIABLE)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        self._seer: Worker[Shot] = Worker(self._remember, self._remembered)
        self._answerer: Worker[Question] = Worker(self._find, self._tell)
        self.input = ViewInput(self, value, self._on_shot, self._complain)
        self.create_subscription(String, "~/text", self._on_text, RELIABLE)
        self.create_subscription(Image, "~/picture", self._on_goal_picture, RELIABLE)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_timer(1.0, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME))

    # What is seen.

    def _on_shot(self, shot: Shot) -> None:
        self._counts["pictures"] += 1
        self._seer.submit(shot)

    def _remember(self, shot: Shot) -> int:
        """How many views of a picture are kept; in the thread that sees."""
        if self.value["camera"] == "panorama":
            pictures, sights = shot.cuts(self._cuts)
        else:
            pictures, sights = shot.views(self.value["camera_yaw"])
        with self._lock:
            if len(self._views) and shot.frame != self._frame:
                raise OtherFrame(
                    f"poses were in {self._frame[:40]!r}, now they are in {shot.frame[:40]!r}: "
                    "left alone (call ~/reset to begin anew)"
                )
            self._frame = shot.frame
            return self._views.see(pictures, sights)

    def _remembered(self, outcome: Outcome[Shot]) -> None:
        if isinstance(outcome.error, ValueError):
            kind = "changed" if isinstance(outcome.error, OtherFrame) else "malformed"
            self._complain(kind, str(outcome.error))
        elif outcome.error is not None:
            self._complain("errors", f"{type(outcome.error).__name__}: {outcome.error}")
        else:
            self._counts["remembered"] += outcome.result
            self._times.append(1e3 * outcome.seconds)

    # What is asked for.

    def _on_text(self, message: String) -> None:
        self._counts["questions"] += 1
        self._answerer.submit(Question(text=message.data))

    def _on_goal_picture(self, message: Image) -> None:
        self._counts["questions"] += 1
        try:
            self._answerer.submit(Question(pixels=read_picture(message, 3)))
        except ValueError as error:
            self._complain("refused", f"~/picture: {error}")

    def _find(self, question: Question) -> Answer:
        """The views that fit; in the thread that answers."""
        k: int = self.value["answers"]
        notes: tuple[str, ...] = ()
        with self._lock:
            if question.text is not None:
                ranking = self._views.ask(question.text, k)
                notes = self._views.model.model.tokenizer.notes(question.text)
            else:
                assert question.pixels is not None
                ranking = self._views.ask_picture(question.pixels, k, self.value["by"])
            return Answer(ranking, self._frame, len(self._views), notes)

    def _tell(self, outcome: Outcome[Question]) -> None:
        if outcome.error is not None:
            refused = isinstance(outcome.error, ValueError)
            words = str(outcome.error) if refused else repr(outcome.error)
            self._complain("refused" if refused else "errors", words)
            return
        answer: Answer = outcome.result
        best = answer.ranking[0].sight
        self._counts["answered"] += 1
        turned = 0.0 if self.value["camera"] == "panorama" else self.value["camera_yaw"]
        self._goal.publish(
            messages.pose_message(
                [best.x, best.y, best.z], level_turn(best.yaw - turned),
                messages.stamp_of(best.stamp), answer.frame,
            )
        )  # fmt: skip
        told = ranking_json(outcome.job, answer, 1e3 * outcome.seconds)
        self._ranking.publish(String(data=told))

    def _on_reset(self, request: Any, response: Any) -> Any:
        with self._lock:
            self._seer.advance()
            self._views.clear()
            self._frame = ""
        response.success, response.message = True, "nothing has been seen"
        return response

    # Reports.

    def _complain(self, name: str, words: str) -> None:
        self._counts[name] += 1
        text = f"{name}: {' '.join(words.split())}"
        self.get_logger().warning(text, throttle_duration_sec=1.0)

    def _report(self) -> None:
        memory = self._views.meanings
        facts: dict[str, Any] = {
            **self._counts,
            "held": len(memory),
            "replaced in their cell": memory.replaced,
            "dropped": memory.dropped,
            "left out by rate": self.input.skipped,
            "overtaken": self._seer.replaced,
            "unanswered for a newer question": self._answerer.replaced,
            **self.input.rejected,
            "frame": self._frame,
        }
        if self._times:
            facts["ms p50"], facts["ms p95"] = (
                f"{ms:.2f}" for ms in median_and_p95(list(self._times))
            )
        news, self._told = self._counts["pictures"] - self._told, self._counts["pictures"]
        level = DiagnosticStatus.OK if news else DiagnosticStatus.WARN
        words = f"{len(memory)} views held, {news} pictures since the last report"
        self._diagnostics.publish(diagnostics(self, words, facts, level))

    def finish(self) -> None:
        """End the threads."""
        self._seer.close()
        self._answerer.close()


def ranking_json(question: Question, answer: Answer, ms: float) -> str:
    """An answer as it goes onto the topic `ranking`."""
    views = [
        {
            "rank": rank, "score": round(score, 4), "x": s.x, "y": s.y, "z": s.z, "yaw": s.yaw,
            "stamp": s.stamp,
        }
        for rank, (s, score) in enumerate(answer.ranking, 1)
    ]  # fmt: skip
    told = {
        "text": None if question.text is None else question.text[:_ECHO],
        "frame": answer.frame,
        "views": views,
        "held": answer.held,
        "notes": list(answer.notes),
        "ms": round(ms, 3),
    }
    return json.dumps(told)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node."""
    return run(GoalViewsNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
