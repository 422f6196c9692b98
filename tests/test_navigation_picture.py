"""The picture of a navigation study: how high its bars are, and which results it holds."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from decisive.benchmarks import navigation
from decisive.benchmarks.navigation_picture import success_picture

GOAL = Path(__file__).parents[1] / "docs" / "benchmarks" / "navigation" / "goal"


def entry(success: float, seeds: int = 1) -> dict[str, Any]:
    return {
        "success": success,
        "success_ci95": [success, success],
        "success_by_seed": [success] * seeds,
        "seeds": seeds,
        "episodes": 4,
    }


def test_a_bar_is_as_high_as_the_success() -> None:
    found = {"one": {"baseline": entry(0.4), "pathdreamer": entry(0.8), "shy": entry(0.2)}}
    picture = Image.open(io.BytesIO(success_picture(found, "title"))).convert("RGB")
    pixels = np.asarray(picture).astype(int)
    heights = []
    for color in ((0x9A, 0xA3, 0xAD), (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        same = (np.abs(pixels - color).sum(-1) == 0).sum(0)
        heights.append(np.sort(same)[-20])  # columns of the bar, none of the legend
    high, middle, low = heights[1], heights[0], heights[2]
    assert low > 30
    assert (high - middle) / (middle - low) == pytest.approx(2, rel=0.05)


def test_only_results_that_differ_in_predictability_stand_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in GOAL.glob("houses-p100-goal-test-h3-*-0.json"):
        shutil.copy(file, tmp_path)
    argv = ["--world", "houses", "--told", "goal", "--first", "60", "--seeds", "1"]
    argv += ["--out", str(tmp_path)]
    navigation.main(argv)  # nothing is trained: all cells are there
    with Image.open(tmp_path / "houses-pall-goal-test-h3.png") as picture:
        assert picture.size[0] > 600
    known = json.loads((tmp_path / "houses-p100-goal-test-h3.json").read_bytes())
    for percent, other in ((50, {"predictability": 0.5}), (0, {"samples": 9})):
        text = json.dumps({**known, "plan": {**known["plan"], **other}})
        (tmp_path / f"houses-p{percent:03d}-goal-test-h3.json").write_text(text)
    drawn = []
    monkeypatch.setattr(
        navigation, "success_picture", lambda found, title: drawn.append((found, title)) or b""
    )
    navigation.main(argv)
    [(groups, title)] = drawn
    assert list(groups) == ["predictability 0.5\n1 seed", "predictability 1\n1 seed"]
    assert title.startswith("houses-pall-goal-test-h3: 540 instructions")
