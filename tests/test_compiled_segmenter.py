"""Segmenters on the fast runtime answer as they do on torch alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from segmenter_cases import saved, seeing

from perception.deep_mac.checkpoint import SavedSegmenter
from perception.deep_mac.compiled import compile_segmenter
from perception.deep_mac.heads import MaskHeadConfig
from perception.deep_mac.proposals import ProposalConfig
from perception.deep_mac.two_stage import DEEP_MARCS, DeepMarc
from perception.runtime import RuntimeConfig, installed

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
BOXES = [[3, 4, 20, 30], [30, 0, 60, 40], [9, 9, 2, 2]]


SLOW = pytest.mark.slow


def check_installed(backend: Any) -> None:
    if not installed(backend):
        pytest.skip(f"{backend} is not installed")


def two_stage() -> SavedSegmenter:
    config = replace(
        DEEP_MARCS["deep_marc_small"],
        n_classes=3,
        backbone="efficientnetv2_b0_quarter",
        width=8,
        box_width=16,
        head=MaskHeadConfig("conv", 2, 4),
        proposals=ProposalConfig(anchor_scale=5.0, per_level=16, kept=8, sampled=16),
    )
    model = DeepMarc(config).eval()
    side = model.stride
    return saved(model, architecture="deep_marc", size=(side, 2 * side))


def same(one: SavedSegmenter, other: SavedSegmenter, **options: Any) -> None:
    for boxes in (None, BOXES):
        left, right = (s.segment(IMAGE, boxes, **options) for s in (one, other))
        assert len(left) == len(right)
        np.testing.assert_allclose(left.boxes, right.boxes, atol=1e-3)
        np.testing.assert_allclose(left.scores, right.scores, atol=1e-5)
        assert left.names == right.names
        assert (left.masks != right.masks).mean() < 1e-3


@pytest.mark.parametrize("make", [lambda: saved(seeing()), two_stage])
def test_on_torch_it_is_the_same_network(make: Any) -> None:
    plain = make()
    compiled, report = compile_segmenter(plain, RuntimeConfig(backend="torch"))
    assert (report.backend, report.precision) == ("torch", "float32")
    for boxes in (None, BOXES):
        one, other = (s.segment(IMAGE, boxes, threshold=0.0, n=5) for s in (plain, compiled))
        assert len(one) > 2
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.masks, other.masks)


@pytest.mark.parametrize("backend", ["openvino", pytest.param("onnxruntime", marks=SLOW)])
def test_another_backend_answers_the_same(backend: Any) -> None:
    check_installed(backend)
    plain = saved(seeing())
    compiled, report = compile_segmenter(plain, RuntimeConfig(backend=backend))
    assert (report.backend, report.precision, report.cached) == (backend, "float32", False)
    assert plain.segment(IMAGE, BOXES).masks.any()
    same(plain, compiled, threshold=0.0, n=3, refine=1)


@pytest.mark.slow
def test_a_compiled_segmenter_is_kept(tmp_path: Path) -> None:
    check_installed("onnxruntime")
    plain, config = saved(seeing()), RuntimeConfig(backend="onnxruntime", cache=tmp_path)
    assert not compile_segmenter(plain, config)[1].cached
    again, report = compile_segmenter(plain, config)
    assert report.cached
    same(plain, again, threshold=0.0, n=3)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_pyramid_of_maps_goes_through_too(backend: Any) -> None:
    check_installed(backend)
    plain = two_stage()
    compiled, _ = compile_segmenter(plain, RuntimeConfig(backend=backend))
    same(plain, compiled, threshold=0.0, n=3)


def test_a_model_in_training_is_refused() -> None:
    plain = saved(seeing())
    plain.model.train()
    with pytest.raises(ValueError, match="evaluation mode"):
        compile_segmenter(plain)
