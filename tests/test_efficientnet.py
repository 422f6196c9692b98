"""EfficientNet, both versions: sizes, timm's numbers, padding, squeezing, depth, gradients.

`tests/data/efficientnet_golden.json` was made by `python tests/test_efficientnet.py` with timm
1.0.31 and torch 2.13.0, where `timm` can be imported. It holds the names of timm's weights (the
suffixes of each kind of block, and which kind each block is) and logits of weights that `fill`
computes from those names.
"""

import importlib
import json
import sys
import zlib
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the script below

from perception.efficientnet import (
    EFFICIENTNETS,
    EfficientNet,
    EfficientNetConfig,
    StageConfig,
    from_timm,
)
from perception.efficientnet_v2 import EFFICIENTNETS_V2
from perception.layers import StochasticDepth

ALL = {**EFFICIENTNETS, **EFFICIENTNETS_V2}
GOLDEN = Path(__file__).resolve().parent / "data" / "efficientnet_golden.json"
N_GOLDEN_CLASSES = 10
SIZES = ((64, 64), (53, 75))
TINY = EfficientNetConfig(
    stem=8,
    stages=(
        StageConfig("fused", 2, expansion=1, width=8, stride=1),
        StageConfig("fused", 2, expansion=2, width=12, stride=2),
        StageConfig("mbconv", 1, expansion=1, width=12, stride=1, kernel=5),
        StageConfig("mbconv", 2, expansion=3, width=16, stride=2),
    ),
    head=24,
)


@lru_cache
def tiny() -> EfficientNet:
    """Its statistics of normalisation are not those that it is born with."""
    torch.manual_seed(0)
    model = EfficientNet(replace(TINY, norm_momentum=1.0), n_classes=5)
    model(torch.randn(8, 3, 33, 47))
    return model.eval()


# Sizes


@pytest.mark.parametrize(
    ("name", "millions"),
    # Of timm's tf_efficientnet_b* and tf_efficientnetv2_*; the papers print the same, but for L
    # (119.5 in the README of google/automl).
    [
        ("efficientnet_b0", 5.288548),
        ("efficientnet_b1", 7.794184),
        ("efficientnet_b2", 9.109994),
        ("efficientnet_b3", 12.233232),
        ("efficientnet_b4", 19.341616),
        ("efficientnet_b5", 30.389784),
        ("efficientnet_b6", 43.040704),
        ("efficientnet_b7", 66.347960),
        ("efficientnetv2_b0", 7.139704),
        ("efficientnetv2_b1", 8.141052),
        ("efficientnetv2_b2", 10.096086),
        ("efficientnetv2_b3", 14.358406),
        ("efficientnetv2_s", 21.458488),
        ("efficientnetv2_m", 54.139356),
        ("efficientnetv2_l", 118.515272),
        ("efficientnetv2_xl", 208.119808),
    ],
)
def test_parameters_are_those_of_the_published_networks(name: str, millions: float) -> None:
    with torch.device("meta"):
        model = EfficientNet(ALL[name])
    assert sum(p.numel() for p in model.parameters()) == round(1e6 * millions)
    assert model.classifier is not None
    assert model.classifier.weight.shape == (1000, model.width)


@pytest.mark.parametrize(
    ("name", "giga"),
    [
        ("efficientnet_b0", 0.39),  # Tan and Le 2019, table 2; the others from our reference notes
        ("efficientnetv2_b0", 0.72),
        ("efficientnetv2_s", 8.37),
        *(
            pytest.param(name, giga, marks=pytest.mark.slow)
            for name, giga in (
                ("efficientnetv2_b1", 1.20),
                ("efficientnetv2_b2", 1.70),
                ("efficientnetv2_b3", 3.01),
                ("efficientnetv2_m", 24.58),
                ("efficientnetv2_l", 56.08),
                ("efficientnetv2_xl", 93.35),
            )
        ),
    ],
)
def test_multiplications_at_the_evaluation_size_are_the_papers(name: str, giga: float) -> None:
    config = ALL[name]
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        EfficientNet(config).eval()(torch.empty(1, 3, config.eval_size, config.eval_size))
    assert counter.get_total_flops() / 2e9 == pytest.approx(giga, abs=0.006)


@pytest.mark.parametrize(
    ("name", "n_parameters"),
    [
        ("efficientnetv2_b0_quarter", 222_206),
        ("efficientnetv2_b0_quarter_fine", 222_206),
        ("efficientnetv2_b0_half", 769_658),
    ],
)
def test_small_networks_are_small(name: str, n_parameters: int) -> None:
    with torch.device("meta"):
        model = EfficientNet(ALL[name], n_classes=10)
    assert sum(p.numel() for p in model.parameters()) == n_parameters


def test_the_fine_network_has_smaller_cells() -> None:
    assert ALL["efficientnetv2_b0_quarter"].stride == 32
    assert ALL["efficientnetv2_b0_quarter_fine"].stride == 16


def test_scaling_rounds_widths_to_eights_and_depths_up() -> None:
    config = EFFICIENTNETS["efficientnet_b3"]
    # 1.2 * (32, 16, 24, 40, 80, 112, 192, 320) is (38.4, 19.2, 28.8, 48, 96, 134.4, 230.4, 384).
    assert config.stem == 40
    assert [s.width for s in config.stages] == [24, 32, 48, 96, 136, 232, 384]
    # 1.4 * (1, 2, 2, 3, 3, 4, 1), rounded up.
    assert [s.n_blocks for s in config.stages] == [2, 3, 3, 5, 5, 6, 2]
    # 16 is less than nine tenths of 19.2, which only the first version minds.
    assert EFFICIENTNETS_V2["efficientnetv2_b3"].stages[0].width == 16


# timm


# Scale of each network's last convolutions of blocks, at which logits are about 1. Below it, the
# images no longer matter; above it, every block multiplies them.
GAINS = {"efficientnet_b0": 4.4, "efficientnetv2_b0": 2.8, "efficientnetv2_s": 1.7}


def fill(name: str, shape: torch.Size, last: float = 1.0) -> Tensor:
    """Numbers in place of learned ones, from a weight's name and shape only."""
    count = torch.arange(shape.numel(), dtype=torch.float64)
    noise = torch.sin(count * 12.9898 + zlib.crc32(name.encode()) % 9973) * 43758.5453
    noise = (2 * (noise - noise.floor()) - 1).view(shape)  # in [-1, 1)
    if name.endswith("running_var"):
        noise = 1 + noise / 2
    elif name.endswith("weight") and len(shape) == 1:
        noise = 1 + noise / 3
    elif name.endswith("weight"):
        gains = {"conv_pwl": last, "conv_dw": 2.9, "conv.": 2.9}
        gain = next((gain for part, gain in gains.items() if part in name), 1.7)
        noise = noise * gain * shape[1:].numel() ** -0.5
    else:
        noise = noise / 10
    return noise.float()


def golden_images(height: int, width: int) -> Tensor:
    return fill("images", torch.Size((2, 3, height, width))) * 20


def timm_names(entry: dict[str, Any]) -> Iterator[str]:
    """Names of the weights of a timm model, in no order."""
    yield from entry["outside"]
    for i, kinds in enumerate(entry["layout"]):
        for j, kind in enumerate(kinds):
            yield from (f"blocks.{i}.{j}.{suffix}" for suffix in entry["kinds"][kind])


def renamed(names: list[str]) -> dict[str, str]:
    """What `from_timm` calls each of timm's names."""
    numbered = from_timm({name: torch.tensor(i) for i, name in enumerate(names)})
    return {names[int(number)]: own for own, number in numbered.items()}


@lru_cache
def golden() -> dict[str, Any]:
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnetv2_b0", "efficientnetv2_s"])
def test_logits_are_timms(name: str) -> None:
    entry = golden()["models"][name]
    with torch.device("meta"):
        model = EfficientNet(ALL[name], N_GOLDEN_CLASSES).eval()
    shapes = {own: tensor.shape for own, tensor in model.state_dict().items()}
    own_names = renamed(list(timm_names(entry)))
    state = {
        own: torch.tensor(0) if own.endswith("tracked") else fill(theirs, shapes[own], GAINS[name])
        for theirs, own in own_names.items()
    }
    model.load_state_dict(state, assign=True)
    for (height, width), expected in zip(SIZES, entry["logits"], strict=True):
        with torch.no_grad():
            logits = model(golden_images(height, width))
        expected = torch.tensor(expected)
        # No constant would pass: the images differ, and so do the classes.
        assert (expected[0] - expected[1]).abs().max() > 0.1
        assert expected.std() > 0.1
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnetv2_b0"])
def test_weights_of_timm_give_the_same_logits_where_timm_is_installed(name: str) -> None:
    timm = pytest.importorskip("timm")
    theirs = filled_timm(timm, name)
    ours = EfficientNet(ALL[name], N_GOLDEN_CLASSES).eval()
    ours.load_state_dict(from_timm(theirs.state_dict()))
    images = golden_images(40, 61)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=1e-4)
        torch.testing.assert_close(
            ours.feature_map(images), theirs.forward_features(images), rtol=0, atol=1e-4
        )


@pytest.mark.parametrize("name", ["blocks.0.0.conv_new.weight", "stem.weight", "bias"])
def test_what_is_not_timms_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' is no weight of timm's EfficientNet"):
        from_timm({"conv_stem.weight": torch.zeros(1), name: torch.zeros(1)})


def filled_timm(timm: Any, name: str) -> Any:
    with torch.device("meta"):
        model = timm.create_model(f"tf_{name}", num_classes=N_GOLDEN_CLASSES).eval()
    state = {
        key: torch.tensor(0) if key.endswith("tracked") else fill(key, value.shape, GAINS[name])
        for key, value in model.state_dict().items()
    }
    model.load_state_dict(state, assign=True)
    return model


def golden_entry(timm: Any, name: str) -> dict[str, Any]:
    model = filled_timm(timm, name)
    outside: list[str] = []
    suffixes: dict[tuple[int, int], list[str]] = {}
    for key in model.state_dict():
        if key.startswith("blocks."):
            _, i, j, suffix = key.split(".", 3)
            suffixes.setdefault((int(i), int(j)), []).append(suffix)
        else:
            outside.append(key)
    kinds = [list(kind) for kind in dict.fromkeys(map(tuple, suffixes.values()))]
    layout: list[list[int]] = [[] for _ in {i for i, _ in suffixes}]
    for (i, _), found in suffixes.items():
        layout[i].append(kinds.index(found))
    with torch.no_grad():
        logits = [
            [[round(x, 6) for x in row] for row in model(golden_images(*size)).tolist()]
            for size in SIZES
        ]
    return {"outside": outside, "kinds": kinds, "layout": layout, "logits": logits}


# Padding


def test_strided_convolutions_pad_as_tensorflow_does() -> None:
    # A stem that sums its window, at 4 and at 5 pixels. TensorFlow's SAME begins the first window
    # of 4 pixels at the first of them, and the first window of 5 one pixel before.
    for size, windows in ((4, [(0, 1, 2), (2, 3)]), (5, [(0, 1), (1, 2, 3), (3, 4)])):
        stem: Any = EfficientNet(TINY, 0, in_channels=1).stem
        stem.norm, stem.act = nn.Identity(), nn.Identity()
        nn.init.ones_(stem.conv.weight)
        row = torch.arange(1.0, size + 1)
        columns = [sum(float(row[i]) for i in window) for window in windows]
        rows = torch.tensor([len(window) for window in windows])
        expected = rows[:, None] * torch.tensor(columns)
        sums = stem(row.expand(1, 1, size, size))
        torch.testing.assert_close(sums[0, 0], expected)


def test_symmetric_padding_is_an_option_that_changes_even_sizes_only() -> None:
    symmetric = EfficientNet(replace(TINY, same_padding=False), n_classes=5).eval()
    symmetric.load_state_dict(tiny().state_dict())
    odd, even = torch.randn(2, 3, 33, 41), torch.randn(2, 3, 32, 40)
    with torch.no_grad():
        torch.testing.assert_close(symmetric(odd), tiny()(odd))
        assert (symmetric(even) - tiny()(even)).abs().max() > 1e-3
        assert symmetric.feature_map(even).shape == tiny().feature_map(even).shape


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70))
def test_images_of_any_size_give_maps_of_the_sizes_said(height: int, width: int) -> None:
    model = tiny()
    images = torch.rand(1, 3, height, width)
    with torch.no_grad():
        last, maps, pooled = model.feature_map(images), model.pyramid(images), model.embed(images)
    strides, widths = (2, 4, 8), (8, 12, 16)
    assert (model.pyramid_strides, model.pyramid_widths) == (strides, widths)
    assert [tuple(x.shape) for x in maps] == [
        (1, n, -(-height // stride), -(-width // stride))
        for stride, n in zip(strides, widths, strict=True)
    ]
    assert last.shape == (1, model.width, -(-height // model.stride), -(-width // model.stride))
    torch.testing.assert_close(pooled, last.mean(dim=(2, 3)))


# Blocks


def test_a_squeezed_channel_is_scaled_by_hand_worked_numbers() -> None:
    squeeze: Any = next(m for m in EfficientNet(TINY).modules() if hasattr(m, "reduce"))
    channels = squeeze.reduce.in_channels
    # A quarter of the block's 12 channels in; as expansion is 1, of all 12 inside too.
    assert (channels, squeeze.reduce.out_channels) == (12, 3)
    with torch.no_grad():
        squeeze.reduce.weight.fill_(1 / channels)
        squeeze.reduce.bias.fill_(0.5)
        squeeze.restore.weight.fill_(1.0)
        squeeze.restore.bias.fill_(-1.0)
    x = torch.rand(1, channels, 2, 3)
    x = x - x.mean() + 0.5
    # The mean is 0.5, so reduced 1, SiLU 0.731059, expanded 3 * 0.731059 - 1 = 1.193176.
    torch.testing.assert_close(squeeze(x), x * 0.767313)


def test_stochastic_depth_rises_linearly_over_blocks_with_a_residual() -> None:
    with torch.device("meta"):
        model = EfficientNet(ALL["efficientnetv2_b0"], 0)
    rates = [m.rate for m in model.modules() if isinstance(m, StochasticDepth)]
    # Of 21 blocks the first of each stage changes size, so nothing can be left out.
    firsts = {0, 1, 3, 5, 8, 13}
    assert rates == pytest.approx([0 if i in firsts else 0.2 * i / 21 for i in range(21)])


def test_a_first_block_of_equal_size_keeps_its_residual() -> None:
    # Stage 1 of S has stride 1 and 24 channels in and out, as its stem.
    config = ALL["efficientnetv2_s"]
    stages: Any = EfficientNet(replace(config, stages=config.stages[:1]), 0).stages
    first = stages[0][0]
    last = first.expand.norm
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    x = torch.randn(2, 24, 6, 5)
    torch.testing.assert_close(first(x), x)


def test_the_first_weights_keep_signals_alive_through_the_depth() -> None:
    torch.manual_seed(0)
    model = EfficientNet(ALL["efficientnetv2_b0_half"], n_classes=10)
    stages: Any = model.stages
    conv = stages[1][0].expand.conv
    # 3x3 to 32 channels: a variance of 2 / (9 * 32).
    assert conv.weight.std().item() == pytest.approx((2 / (9 * 32)) ** 0.5, rel=0.05)
    logits = model(torch.randn(16, 3, 64, 64))
    assert 0.02 < logits.std() < 5


# Contract


def test_every_parameter_receives_a_gradient() -> None:
    torch.manual_seed(0)
    model = EfficientNet(TINY, n_classes=4, in_channels=2).train()
    F.cross_entropy(model(torch.randn(6, 2, 31, 22)), torch.arange(6) % 4).backward()
    silent = [
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0
    ]
    assert not silent


def test_images_of_a_batch_do_not_mix_in_evaluation() -> None:
    model, images = deepcopy(tiny()).double(), torch.randn(3, 3, 40, 24, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(images)[1:2], model(images[1:2]), rtol=1e-9, atol=1e-9)


def test_logits_are_the_classifier_of_what_embed_gives() -> None:
    model, images = tiny(), torch.randn(2, 3, 20, 20)
    assert model.classifier is not None
    with torch.no_grad():
        torch.testing.assert_close(model(images), model.classifier(model.embed(images)))


def test_dropout_acts_in_training_only_and_on_the_classifier_only() -> None:
    model = EfficientNet(replace(TINY, dropout=0.9, drop_path=0.0), n_classes=4)
    images = torch.randn(4, 3, 20, 20)
    with torch.no_grad():
        assert not torch.equal(model(images), model(images))
        torch.testing.assert_close(model.embed(images), model.embed(images))
        model.eval()
        torch.testing.assert_close(model(images), model(images))


def test_without_classes_forward_gives_the_pooled_features() -> None:
    model = EfficientNet(TINY, n_classes=0)
    assert not [name for name in model.state_dict() if name.startswith("classifier")]
    images = torch.randn(2, 3, 20, 28)
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(images), model.embed(images))


def test_the_same_seed_gives_the_same_network() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(7)
        states.append(EfficientNet(TINY).state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*map(dict.values, states), strict=True))


def test_a_tiny_network_learns_where_the_bright_half_is() -> None:
    torch.manual_seed(0)
    model = EfficientNet(replace(TINY, stem_stride=1, norm_momentum=0.1), n_classes=2)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)

    def draw(n: int) -> tuple[Tensor, Tensor]:
        images, labels = torch.rand(n, 3, 12, 12), torch.randint(2, (n,))
        images[labels == 0, :, :6] += 0.3
        images[labels == 1, :, 6:] += 0.3
        return images, labels

    for _ in range(60):
        images, labels = draw(32)
        optimiser.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimiser.step()
    images, labels = draw(200)
    with torch.no_grad():
        right = (model.eval()(images).argmax(1) == labels).float().mean()
    assert right > 0.9


# Errors


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: StageConfig("dense", 1, 1, 8, 1), "fused, mbconv, got 'dense'"),  # type: ignore[arg-type]
        (lambda: StageConfig("fused", 0, 1, 8, 1), "n_blocks must be whole and at least 1, got 0"),
        (lambda: StageConfig("fused", 1, 1.5, 8, 1), "expansion must be whole"),  # type: ignore[arg-type]
        (lambda: StageConfig("fused", 1, 1, 8, 3), "stride must be 1 or 2, got 3"),
        (lambda: StageConfig("fused", 1, 1, 8, 1, 4), "kernel must be odd, got 4"),
        (lambda: replace(TINY, stages=()), "stages must be a tuple"),
        (lambda: replace(TINY, stem=0), "stem must be whole and at least 1"),
        (lambda: replace(TINY, stem_stride=4), "stem_stride must be 1 or 2, got 4"),
        (lambda: replace(TINY, dropout=1.0), r"dropout must be in \[0, 1\), got 1.0"),
        (lambda: replace(TINY, squeeze=0.0), r"squeeze must be in \(0, 1\], got 0.0"),
        (lambda: replace(TINY, norm_eps=0.0), "norm_eps must be positive, got 0.0"),
        (lambda: TINY.scaled(0.0), "width and depth must be positive, got 0.0 and 1.0"),
        (lambda: EfficientNet(TINY, n_classes=-1), "got -1 and 3"),
        (lambda: tiny()(torch.zeros(1, 4, 8, 8)), r"\(B, 3, H, W\), got \(1, 4, 8, 8\)"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


if __name__ == "__main__":
    installed: Any = importlib.import_module("timm")
    names = ("efficientnet_b0", "efficientnetv2_b0", "efficientnetv2_s")
    made = {
        "timm": installed.__version__,
        "torch": torch.__version__.split("+")[0],
        "sizes": SIZES,
        "models": {name: golden_entry(installed, name) for name in names},
    }
    GOLDEN.write_text(json.dumps(made), encoding="utf-8")
