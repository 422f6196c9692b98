"""D4RL's reference returns, and the normalised score that follows from them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reference:
    """Returns between which scores are measured.

    Source: Farama-Foundation/D4RL@89141a68, `d4rl/infos.py`; the human, cloned and expert sets of a
    task have the same two.

    Attributes:
        low: mean return of random actions; score 0.
        high: mean return of an expert; score 100.
    """

    low: float
    high: float

    def normalized(self, total_reward: float) -> float:
        """Score of a return: 0 at `low`, 100 at `high`, a straight line through both."""
        return 100.0 * (total_reward - self.low) / (self.high - self.low)


REFERENCES: dict[str, Reference] = {
    "pen": Reference(96.262799, 3076.8331017826877),
    "hammer": Reference(-274.856578, 12794.134825156867),
    "door": Reference(-56.512833, 2880.5693087298737),
    "relocate": Reference(-6.425911, 4233.877797728884),
    "kitchen": Reference(0.0, 4.0),
}
"""By task."""
