"""SpineNet: the paper's sizes, its graph, resampling, maps of any size, gradients."""

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from perception import create
from perception.layers import StochasticDepth
from perception.spinenet import SPINENETS, SpineNet, SpineNetConfig, _Resample, block_sources

TINY = SpineNetConfig(scale=0.0625, endpoint_width=8, stem_width=8)


@lru_cache
@torch.inference_mode(False)  # as in test_two_stage: a test may ask first that is in it
def tiny() -> SpineNet:
    """Its statistics of normalisation are not those that it is born with."""
    torch.manual_seed(0)
    model = SpineNet(replace(TINY, norm_momentum=1.0), n_classes=5)
    model(torch.randn(8, 3, 64, 96))
    return model.eval()


@lru_cache
def on_meta(name: str, n_classes: int = 1000) -> SpineNet:
    with torch.device("meta"):
        return SpineNet(SPINENETS[name], n_classes).eval()


def millions(module: nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


# Sizes


@pytest.mark.parametrize(
    ("name", "ours", "paper"),
    # With 1000 classes; the paper's table of ImageNet, which leaves 49S out.
    [
        ("spinenet_49", 22.088488, 22.1),
        ("spinenet_96", 36.519976, 36.5),
        ("spinenet_143", 60.504616, 60.5),
        ("spinenet_190", 127.100664, 127.1),
    ],
)
def test_parameters_of_classifiers_are_the_papers(name: str, ours: float, paper: float) -> None:
    assert millions(on_meta(name)) == pytest.approx(ours, abs=1e-6)
    assert millions(on_meta(name)) == pytest.approx(paper, abs=0.05)


def retina_head(width: int, n_convolutions: int, n_classes: int = 91) -> float:
    """Millions of parameters of RetinaNet's head: two towers, their norms for each of 5 levels."""
    anchors, window = 9, 9 * width
    towers = 2 * n_convolutions * (window * width + width + 5 * 2 * width)
    return (towers + (window + 1) * anchors * (n_classes + 4)) / 1e6


@pytest.mark.parametrize(
    ("name", "n_convolutions", "paper"),
    # The paper's tables of RetinaNet; the largest has a deeper and wider head. For 49S they print
    # 12.0 (11.9 in the published table of models), which no head that is told gives.
    [
        ("spinenet_49", 4, 28.5),
        ("spinenet_96", 4, 43.0),
        ("spinenet_143", 4, 66.9),
        ("spinenet_190", 7, 163.6),
    ],
)
def test_parameters_of_detectors_are_the_papers(
    name: str, n_convolutions: int, paper: float
) -> None:
    model = on_meta(name)
    assert model.classifier is not None
    backbone = millions(model) - millions(model.classifier)
    assert backbone + retina_head(model.width, n_convolutions) == pytest.approx(paper, abs=0.1)


@pytest.mark.parametrize(("name", "n"), [("spinenet_mini", 800_624), ("spinenet_49s", 9_089_215)])
def test_sizes_without_a_classifier_in_the_paper(name: str, n: int) -> None:
    assert round(millions(on_meta(name, 0)) * 1e6) == n


@pytest.mark.parametrize(
    ("name", "paper"),
    [
        ("spinenet_49", 3.5),
        pytest.param("spinenet_96", 5.7, marks=pytest.mark.slow),
        pytest.param("spinenet_143", 9.1, marks=pytest.mark.slow),
        pytest.param("spinenet_190", 19.1, marks=pytest.mark.slow),
    ],
)
def test_multiplications_at_224_pixels_are_the_papers(name: str, paper: float) -> None:
    done, saved = 0.0, 0.0

    def count(layer: Any, _: Any, result: Tensor) -> None:
        nonlocal done
        done += result.numel() * layer.weight[0].numel() / 1e9

    def count_saved(connection: Any, _: Any, result: Tensor) -> None:
        # What the last convolution would have taken more after the upsampling, as in the paper.
        nonlocal saved
        if connection.steps < 0:
            steps = connection.steps
            layer = connection.expand.conv
            saved += result.numel() * layer.weight[0].numel() / 1e9 * (1 - 4.0**steps)

    model = on_meta(name)
    hooks = [
        module.register_forward_hook(count_saved if isinstance(module, _Resample) else count)
        for module in model.modules()
        if isinstance(module, nn.Conv2d | nn.Linear | _Resample)
    ]
    with torch.no_grad():
        model(torch.empty(1, 3, 224, 224, device="meta"))
    for hook in hooks:
        hook.remove()
    assert done + saved == pytest.approx(paper, abs=0.05)
    assert saved > 0.01 * done


@pytest.mark.parametrize(
    ("name", "depth"),
    [("spinenet_49", 49), ("spinenet_96", 96), ("spinenet_143", 143), ("spinenet_190", 190)],
)
def test_a_network_is_named_by_its_layers_without_connections(name: str, depth: int) -> None:
    # As a ResNet is: the stem, the convolutions of all blocks, the classifier.
    layers = [
        path
        for path, module in on_meta(name).named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
        and not any(part in path for part in ("connections", "shortcut", "endpoints"))
    ]
    assert len(layers) == depth


# Graph


def test_every_block_is_read_or_is_an_output_and_reads_only_blocks_before_it() -> None:
    sources = block_sources()
    assert sorted(sources) == list(range(2, 18))
    assert all(max(parents) < index for index, parents in sources.items())
    assert {i for parents in sources.values() for i in parents} | {13, *range(15, 18)} == set(
        range(18)
    )
    # One block of level 5 ends nowhere, and joins the output of that level.
    assert {i: s for i, s in sources.items() if len(s) > 2} == {14: (7, 12, 11)}


def test_blocks_that_no_map_needs_are_left_out() -> None:
    def blocks(first: int, last: int) -> list[int]:
        with torch.device("meta"):
            model = SpineNet(replace(TINY, levels=(first, last)), 0)
        return [int(name) for name in model.blocks]

    assert blocks(2, 7) == list(range(2, 18))
    assert blocks(3, 7) == list(range(2, 17))
    assert blocks(4, 4) == [*range(2, 11), 12]
    assert blocks(7, 7) == [*range(2, 13), 14, 15]


@pytest.mark.parametrize("levels", [(3, 7), (2, 6), (4, 4), (2, 7)])
def test_every_parameter_gets_a_gradient(levels: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = SpineNet(replace(TINY, levels=levels), n_classes=4, in_channels=2).train()
    F.cross_entropy(model(torch.randn(6, 2, 71, 50)), torch.arange(6) % 4).backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


# Resampling


def plain(resample: nn.Module) -> nn.Module:
    """Convolutions that copy: 1x1 identities, and 3x3 ones that read their centre."""
    for module in resample.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.dirac_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
    return resample.eval()


def test_a_connection_to_finer_levels_repeats_cells() -> None:
    config = SpineNetConfig(scale=1 / 64, endpoint_width=1, stem_width=1, alpha=1.0)
    up: Any = plain(_Resample(config, 4, 2))  # bottlenecks of levels 3 and 2
    x = torch.arange(1.0, 5).view(1, 1, 2, 2).repeat(1, 8, 1, 1)
    found = up(x, (4, 4))
    assert found.shape == (1, 4, 4, 4)
    expected = torch.tensor([[1.0, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]])
    assert torch.equal(found[0, 0], expected)
    # To an odd number of cells: each reads the one that it lies in.
    assert torch.equal(up(x, (3, 3))[0, 0], torch.tensor([[1.0, 1, 2], [1, 1, 2], [3, 3, 4]]))


def test_a_connection_to_coarser_levels_takes_a_stride_then_maxima() -> None:
    config = SpineNetConfig(scale=1 / 64, endpoint_width=1, stem_width=1, alpha=1.0)
    down: Any = plain(_Resample(config, 2, 5))  # from level 2 to level 4
    x = torch.arange(64.0).view(1, 1, 8, 8).repeat(1, 4, 1, 1)
    # The stride keeps rows and columns 0, 2, 4, 6: 0 2 4 6, 16 18 20 22 and so on. Windows of 3,
    # padded by 1, at a stride of 2: maxima of rows 0 and 1, and of rows 1 to 3.
    found = down(x, (2, 2))[0, 0]
    assert found.tolist() == [[18, 22], [50, 54]]
    assert isinstance(down.down[1], nn.MaxPool2d)
    assert down.steps == 2


def test_channels_inside_a_connection_are_half_of_the_inner_ones_of_its_source() -> None:
    blocks: Any = on_meta("spinenet_49").blocks
    first, second = blocks["6"].connections  # to a residual block of level 6, 256 wide
    # From a residual block of level 4, and from a bottleneck of it with 4 * 256 channels.
    assert first.squeeze.conv.weight.shape[:2] == (128, 256)
    assert second.squeeze.conv.weight.shape[:2] == (128, 1024)
    assert second.expand.conv.weight.shape[:2] == (256, 128)
    larger: Any = on_meta("spinenet_143").blocks
    assert larger["6"].connections[1].squeeze.conv.weight.shape[:2] == (256, 1024)


# Maps


@settings(max_examples=15, deadline=None)
@given(height=st.integers(1, 150), width=st.integers(1, 150))
def test_images_of_any_size_give_maps_of_the_sizes_said(height: int, width: int) -> None:
    model = tiny()
    with torch.no_grad():
        maps = model.pyramid(torch.rand(1, 3, height, width))
        last = model.feature_map(torch.rand(1, 3, height, width))
    assert model.pyramid_strides == (8, 16, 32, 64, 128)
    assert model.pyramid_widths == (8,) * 5
    assert [tuple(x.shape) for x in maps] == [
        (1, 8, math.ceil(height / stride), math.ceil(width / stride))
        for stride in model.pyramid_strides
    ]
    assert last.shape == maps[0].shape


def test_the_feature_map_is_the_mean_of_all_maps_repeated_to_the_finest() -> None:
    images = torch.rand(2, 3, 128, 256)
    with torch.no_grad():
        maps = tiny().pyramid(images)
        repeated = [
            x.repeat_interleave(2**i, 2).repeat_interleave(2**i, 3) for i, x in enumerate(maps)
        ]
        torch.testing.assert_close(tiny().feature_map(images), torch.stack(repeated).mean(0))
        torch.testing.assert_close(tiny().embed(images), tiny().feature_map(images).mean((2, 3)))


def test_maps_of_chosen_levels_are_made() -> None:
    model = SpineNet(replace(TINY, levels=(2, 5)), 0).eval()
    assert (model.stride, model.pyramid_strides) == (4, (4, 8, 16, 32))
    with torch.no_grad():
        sizes = [x.shape[-1] for x in model.pyramid(torch.rand(1, 3, 64, 64))]
    assert sizes == [16, 8, 4, 2]


def test_a_change_anywhere_is_seen_in_all_maps() -> None:
    images = torch.rand(1, 3, 128, 128)
    changed = images.clone()
    changed[..., 60:68, 60:68] += 3
    with torch.no_grad():
        for before, after in zip(tiny().pyramid(images), tiny().pyramid(changed), strict=True):
            assert not torch.equal(before, after)


# Contract


def test_images_of_a_batch_do_not_mix_in_evaluation() -> None:
    model, images = deepcopy(tiny()).double(), torch.randn(3, 3, 40, 56, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(images)[1:2], model(images[1:2]), rtol=1e-9, atol=1e-9)


def test_a_small_one_keeps_what_the_catalogue_promises() -> None:
    torch.manual_seed(0)
    model: Any = create("spinenet_mini", n_classes=5).eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    other: Any = create("spinenet_mini", n_classes=5).eval()
    other.load_state_dict(load(save(model.state_dict())))
    bare: Any = create("spinenet_mini", n_classes=0).eval()
    with torch.inference_mode():
        exact = model.embed(images)
        assert torch.equal(model(images), model.classifier(exact))
        assert torch.equal(model(images), other(images))
        assert bare(images).shape == (2, bare.width)
        rough = model.to(torch.bfloat16).embed(images.to(torch.bfloat16)).float()
    assert F.cosine_similarity(exact, rough).min() > 0.995


@pytest.mark.slow
def test_a_small_one_can_be_exported() -> None:
    images = torch.rand(2, 3, 64, 96)
    exported = torch.export.export(tiny(), (images,)).module()
    with torch.inference_mode():
        torch.testing.assert_close(exported(images), tiny()(images), atol=1e-5, rtol=1e-5)


def test_stochastic_depth_rises_over_the_blocks() -> None:
    with torch.device("meta"):
        model = SpineNet(replace(TINY, stochastic_depth=0.32, levels=(2, 7), repeats=2), 0)
    rates = {
        name: {m.rate for m in block.modules() if isinstance(m, StochasticDepth)}
        for name, block in model.blocks.items()
    }
    assert all(len(found) == 1 for found in rates.values())
    found = [next(iter(rates[str(i)])) for i in range(2, 18)]
    assert found == pytest.approx([0.02 * i for i in range(1, 17)])
    stem = [m.rate for m in model.stem_blocks.modules() if isinstance(m, StochasticDepth)]
    assert stem == [0] * 4


def test_the_first_weights_keep_signals_alive() -> None:
    torch.manual_seed(0)
    model: Any = create("spinenet_mini", n_classes=10)
    with torch.no_grad():
        assert 0.02 < model(torch.randn(8, 3, 128, 128)).std() < 5


def activations(model: nn.Module) -> Iterator[type[nn.Module]]:
    for module in model.modules():
        if isinstance(module, nn.ReLU | nn.SiLU):
            yield type(module)


def test_the_activation_is_chosen_everywhere() -> None:
    with torch.device("meta"):
        assert set(activations(SpineNet(TINY))) == {nn.ReLU}
        assert set(activations(SpineNet(replace(TINY, activation="silu")))) == {nn.SiLU}


@pytest.mark.learning
def test_a_tiny_network_learns_eight_images_by_heart() -> None:
    torch.manual_seed(0)
    model = SpineNet(replace(TINY, scale=0.125, endpoint_width=16, levels=(3, 4)), n_classes=2)
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8) % 2
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        optimiser.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.25 < 0.5 < losses[0]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: replace(TINY, repeats=0), "repeats must be whole and at least 1, got 0"),
        (lambda: replace(TINY, endpoint_width=1.5), "endpoint_width must be whole"),  # type: ignore[arg-type]
        (lambda: replace(TINY, scale=0.01), "scale must be at least 1 / 64"),
        (lambda: replace(TINY, alpha=0.0), "alpha above 0, got 0.0625 and 0.0"),
        (lambda: replace(TINY, levels=(1, 7)), r"from 2 to 7, got \(1, 7\)"),
        (lambda: replace(TINY, levels=(5, 4)), r"from 2 to 7, got \(5, 4\)"),
        (lambda: replace(TINY, levels=(3,)), "the finest and the coarsest"),  # type: ignore[arg-type]
        (lambda: replace(TINY, activation="gelu"), "one of relu, silu, got 'gelu'"),  # type: ignore[arg-type]
        (lambda: replace(TINY, stochastic_depth=1.0), r"in \[0, 1\), got 1.0"),
        (lambda: replace(TINY, norm_momentum=0.0), r"in \(0, 1\], got 0.0"),
        (lambda: SpineNet(TINY, n_classes=-1), "got -1 and 3"),
        (lambda: tiny()(torch.zeros(1, 4, 8, 8)), r"\(B, 3, H, W\), got \(1, 4, 8, 8\)"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()
