"""Is the classifier better than its controls? Paired tests on the scores that cells keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from decisive.benchmarks.triage_study import Study, rows_of
from perception.abnormality_scores import delong_test

Cells = Mapping[str, Sequence[dict[str, Any] | None]]
LEVEL = 0.05
NOTES = (
    "Paired DeLong tests on the same test pictures, one a seed: the area of the picture less that "
    f"of the control, mean of the seeds; in brackets the seeds in which it is above 0 with p below "
    f"{LEVEL}, and the largest p. The seeds share their test pictures, so they are no independent "
    "tests."
)


def compare(
    first: Mapping[str, Any], second: Mapping[str, Any], study: Study
) -> dict[str, tuple[float, float]]:
    """By condition, the first area less the second and the p value of no difference.

    Raises:
        ValueError: if the cells were not scored on the same pictures.
    """
    one, two = first["test"], second["test"]
    if any(one[key] != two[key] for key in ("names", "places")):
        raise ValueError("cells must be scored on the same test pictures to be compared")
    folders = np.array(one["names"])[one["places"]]
    truth = (folders != study.normal).astype(np.int64)
    scores = [np.array(cell["logits"]) for cell in (one, two)]
    found = {}
    for condition in study.conditions:
        kept = rows_of(study, condition, folders)
        found[condition] = delong_test(scores[0][kept], scores[1][kept], truth[kept])
    return found


def compare_table(found: Cells, study: Study) -> tuple[list[str], list[list[str]]]:
    """Header and rows: the classifier less each control, for each condition."""
    header = ["the picture less", *(name.replace("_", " ") for name in study.conditions), "seeds"]
    rows = []
    for control in (name for name in found if name != "all"):
        pairs = [
            (one, two)
            for one, two in zip(found["all"], found[control], strict=True)
            if one is not None and two is not None and "test" in one and "test" in two
        ]
        told = [compare(one, two, study) for one, two in pairs]
        cells = [_cell([each[condition] for each in told]) for condition in study.conditions]
        rows.append([control, *cells, f"{len(pairs)} of {len(found[control])}"])
    return header, rows


def _cell(tests: Sequence[tuple[float, float]]) -> str:
    if not tests:
        return "not run"
    mean = float(np.mean([difference for difference, _ in tests]))
    above = sum(difference > 0 and p < LEVEL for difference, p in tests)
    worst = max(p for _, p in tests)
    told = f"p < {0.001}" if worst < 0.001 else f"p {worst:.3f}"
    return f"{mean:+.3f} ({above} of {len(tests)}; {told})"
