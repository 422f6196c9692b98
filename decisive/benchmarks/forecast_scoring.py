"""Scores of one method at one moment, as JSON values that add up over moments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from world_models.metnet2 import scores
from world_models.metnet2.calibration import reliability

Floats = NDArray[np.floating]
Map = NDArray[np.float32]

THRESHOLDS = (0.2, 1.0, 4.0)
"""mm/h whose exceedance is forecast."""
LEVELS = np.arange(1, 50) / 50
"""Probabilities at which one may decide."""
MARGIN = 60
"""Cells at each side of the square that the scores of its middle leave out: rain comes in there
from where nobody looked."""
BINS = 10


class Predicted(Protocol):
    """A forecast, whatever its form."""

    def crps(self, lead: int, observed: Map) -> Map:
        """Score of each cell, `(H, W)`."""
        ...

    def probability(self, lead: int, threshold: float) -> Map:
        """Of at least a threshold, `(H, W)`."""
        ...


class Ensemble:
    """Members; a single one is certain of itself. Where a member says nothing it is dry."""

    def __init__(self, members: Floats) -> None:
        """Hold `(M, L, H, W)` mm/h."""
        self._members = members

    def silent(self) -> float:
        """Share of all values that are not said."""
        return float(np.isnan(self._members).mean())

    def _at(self, lead: int) -> Map:
        return np.nan_to_num(self._members[:, lead].astype(np.float32))

    def crps(self, lead: int, observed: Map) -> Map:
        """Energy form."""
        return scores.crps_ensemble(self._at(lead), observed)

    def probability(self, lead: int, threshold: float) -> Map:
        """Share of the members."""
        return scores.exceedance_ensemble(self._at(lead), threshold)


class Binned:
    """Probabilities of bins; where they are not said, dry is certain."""

    def __init__(self, probabilities: Floats, edges: Floats) -> None:
        """Hold `(L, K, H, W)` and `(K + 1,)` mm/h."""
        self._probabilities, self._edges = probabilities, edges

    def silent(self) -> float:
        """Share of cells of all leads that nothing is said of."""
        return float(np.isnan(self._probabilities[:, 0]).mean())

    def _at(self, lead: int) -> Map:
        found = np.array(self._probabilities[lead], np.float32)
        nothing = np.isnan(found).any(axis=0)
        if nothing.any():
            found[:, nothing] = 0.0
            found[0, nothing] = 1.0
        return found

    def crps(self, lead: int, observed: Map) -> Map:
        """The exact integral."""
        return scores.crps(self._at(lead), self._edges, observed)

    def probability(self, lead: int, threshold: float) -> Map:
        """From the piecewise linear distribution."""
        return scores.exceedance(self._at(lead), self._edges, threshold)


def score(found: Predicted, truth: Map, leads: Sequence[int]) -> dict[str, Any]:
    """Everything about one forecast.

    Args:
        found: the forecast, whose leads are those of `truth`.
        truth: `(L, H, W)` mm/h, NaN unknown.
        leads: minutes.

    Returns:
        `crps`, `crps_middle` by lead; `brier`, `said`, `hits`, `happened` and `reliability` by
        threshold and lead; `known`: how many cells were scored.
    """
    told: dict[str, Any] = {"leads": list(leads), "crps": [], "crps_middle": [], "known": []}
    tables = ("brier", "said", "hits", "happened", "reliability")
    told |= {name: {f"{t:g}": [] for t in THRESHOLDS} for name in tables}
    for lead, observed in enumerate(truth):
        cells = found.crps(lead, observed)
        told["crps"].append(float(np.nanmean(cells, dtype=np.float64)))
        told["crps_middle"].append(float(np.nanmean(middle(cells), dtype=np.float64)))
        told["known"].append(int((~np.isnan(cells)).sum()))
        for threshold in THRESHOLDS:
            probability = found.probability(lead, threshold)
            _add(told, f"{threshold:g}", probability, scores.occurred(observed, threshold))
    return told


def middle(cells: Map) -> Map:
    """Without `MARGIN` at each side; of a square too small for that, its inner quarter."""
    side = min(cells.shape)
    margin = MARGIN if side > 4 * MARGIN else side // 4
    return cells[margin:-margin, margin:-margin]


def _add(told: dict[str, Any], key: str, probability: Map, event: Map) -> None:
    told["brier"][key].append(float(np.nanmean(scores.brier(probability, event), dtype=np.float64)))
    said, hits, happened = scores.decision_counts(probability, event, LEVELS)
    told["said"][key].append(said.tolist())
    told["hits"][key].append(hits.tolist())
    told["happened"][key].append(happened)
    counted = reliability(np.clip(probability, 0, 1), event, BINS)
    told["reliability"][key].append(
        [counted.counts.tolist(), counted.forecast.tolist(), counted.happened.tolist()]
    )
