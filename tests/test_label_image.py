"""Label images of segments: which instance each pixel shows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from perception.deep_mac.segments import Segments


def segments(masks: np.ndarray, scores: list[float]) -> Segments:
    n = len(scores)
    return Segments(
        boxes=np.zeros((n, 4), np.float32),
        scores=np.array(scores, np.float32),
        classes=np.zeros(n, np.int64),
        names=("thing",) * n,
        masks=masks,
    )


def test_the_higher_score_is_on_top_and_ids_count_from_one() -> None:
    masks = np.zeros((3, 2, 4), bool)
    masks[0, 0, :3] = masks[1, 0, 1:] = masks[2, :, 2] = True
    labels = segments(masks, [0.5, 0.9, 0.7]).label_image()
    assert labels.dtype == np.uint16
    assert labels.tolist() == [[1, 2, 2, 2], [0, 0, 3, 0]]


def test_of_equal_scores_the_earlier_instance_is_on_top() -> None:
    labels = segments(np.ones((3, 1, 2), bool), [0.5, 0.5, 0.5]).label_image()
    assert labels.tolist() == [[1, 1]]


def test_without_instances_nothing_is_shown() -> None:
    assert segments(np.zeros((0, 2, 3), bool), []).label_image().tolist() == [[0] * 3] * 2


def test_as_many_instances_as_16_bits_tell_apart() -> None:
    scores = np.linspace(0, 1, 65_535).tolist()
    labels = segments(np.ones((65_535, 1, 1), bool), scores).label_image()
    assert labels.tolist() == [[65_535]]
    with pytest.raises(ValueError, match="tells 65535 instances apart, got 65536"):
        segments(np.ones((65_536, 1, 1), bool), [0.5] * 65_536).label_image()


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(bool, st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 5))),
    st.data(),
)
def test_each_pixel_shows_the_best_of_the_masks_that_cover_it(
    masks: np.ndarray, data: st.DataObject
) -> None:
    scores = data.draw(
        st.lists(st.floats(0, 1, width=32), min_size=len(masks), max_size=len(masks))
    )
    covered = np.where(masks, np.array(scores)[:, None, None], -1.0)
    expected = np.where(masks.any(0), covered.argmax(0) + 1, 0)
    np.testing.assert_array_equal(segments(masks, scores).label_image(), expected)
