import functools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from perception.deep_mac.heads import (
    LOGIT_BIAS,
    LOGIT_STD,
    MASK_HEADS,
    MaskHead,
    MaskHeadConfig,
    create_mask_head,
    resolve_mask_head,
)

SMALL = 4  # A width at which the deepest heads are quick.


@functools.cache
def on_meta(config: MaskHeadConfig, in_channels: int = 50) -> MaskHead:
    with torch.device("meta"):
        return create_mask_head(config, in_channels)


def made(name: str, width: int = SMALL, **changes: Any) -> MaskHead:
    torch.manual_seed(0)
    return create_mask_head(replace(MASK_HEADS[name], width=width, **changes), 5)


def longest_path(head: MaskHead) -> int:
    """3x3 convolutions on the longest path from the crops to the logits."""
    graph = fx.symbolic_trace(head).graph
    modules = dict(head.named_modules())
    depth: dict[fx.Node, int] = {}
    for node in graph.nodes:
        before = max((depth[source] for source in node.all_input_nodes), default=0)
        layer = modules[str(node.target)] if node.op == "call_module" else None
        counts = isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)
        depth[node] = before + counts
    return max(depth.values())


@pytest.mark.parametrize("name", MASK_HEADS)
def test_the_number_in_a_name_is_the_count_of_3x3_convolutions_on_the_longest_path(
    name: str,
) -> None:
    assert longest_path(on_meta(MASK_HEADS[name])) == int(name.split("-")[1])


def test_convolutions_that_are_not_counted_are_1x1() -> None:
    for name in ("hourglass-20", "resnet-20", "conv-4"):
        layers = on_meta(MASK_HEADS[name]).modules()
        sizes = {layer.kernel_size for layer in layers if isinstance(layer, nn.Conv2d)}
        assert sizes == {(3, 3), (1, 1)}


def test_names_are_those_of_the_paper() -> None:
    depths = {"hourglass": (10, 20, 32, 52, 100), "resnet": (4, 8, 12, 16, 20), "conv": (4,)}
    assert set(MASK_HEADS) == {f"{kind}-{n}" for kind, all_n in depths.items() for n in all_n}
    assert all(config.name == name for name, config in MASK_HEADS.items())
    assert {config.width for config in MASK_HEADS.values()} == {64}


# Measured on another implementation, 50 channels in: millions of parameters and multiplications
# (in thousands of millions) of a crop of 32 x 32, at width 64; multiplications at width 16.
MEASURED = {
    "conv-4": (0.14, 0.143, 0.014),
    "resnet-4": (0.53, 0.54, 0.034),
    "resnet-16": (2.3, 2.35, 0.148),
    "hourglass-10": (1.6, 0.95, 0.065),
    "hourglass-20": (5.5, 1.26, 0.084),
    "hourglass-32": (10.4, 1.77, 0.116),
    "hourglass-52": (23.5, 1.80, 0.118),
    "hourglass-100": (47.0, 3.20, 0.205),
}


def multiplications(head: MaskHead) -> float:
    """Of all convolutions for one crop, in thousands of millions."""
    total = 0

    def count(layer: nn.Module, _: Any, out: Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Conv2d)
        total += layer.weight.numel() * out.shape[-2] * out.shape[-1]

    hooks = [m.register_forward_hook(count) for m in head.modules() if isinstance(m, nn.Conv2d)]
    head(torch.zeros(1, 50, 32, 32, device="meta"))
    for hook in hooks:
        hook.remove()
    return total / 1e9


@pytest.mark.parametrize("name", MEASURED)
def test_parameters_and_multiplications_are_those_of_the_reference(name: str) -> None:
    parameters, wide, narrow = MEASURED[name]
    head = on_meta(MASK_HEADS[name])
    assert sum(p.numel() for p in head.parameters()) / 1e6 == pytest.approx(parameters, rel=0.02)
    assert multiplications(head) == pytest.approx(wide, rel=0.03)
    head = on_meta(replace(MASK_HEADS[name], width=16))
    assert multiplications(head) == pytest.approx(narrow, rel=0.05)


def test_a_shallow_head_can_be_as_large_as_a_deep_one() -> None:
    deep = sum(p.numel() for p in on_meta(MASK_HEADS["hourglass-20"]).parameters())
    wide = sum(p.numel() for p in on_meta(MaskHeadConfig("conv", 4, 445)).parameters())
    assert wide == pytest.approx(deep, rel=0.02)


@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize("name", ["hourglass-10", "hourglass-52", "resnet-20", "conv-4"])
def test_every_parameter_gets_a_gradient(name: str, norm: str) -> None:
    head = made(name, norm=norm)
    head(torch.randn(3, 5, 32, 32)).square().sum().backward()
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize("size", [32, 28, 33])
def test_crops_of_any_size_become_masks_of_the_same_size(size: int) -> None:
    for name in ("hourglass-20", "hourglass-52", "resnet-4", "conv-4"):
        assert made(name)(torch.randn(2, 5, size, size)).shape == (2, size, size)


@pytest.mark.parametrize("name", ["hourglass-52", "resnet-20", "conv-4"])
@pytest.mark.parametrize("norm", ["group", "batch"])
def test_no_instance_gives_no_mask_and_gradients_of_zero(name: str, norm: str) -> None:
    head = made(name, norm=norm)
    before = {key: value.clone() for key, value in head.state_dict().items()}
    logits = head(torch.zeros(0, 5, 32, 32))
    assert logits.shape == (0, 32, 32)
    logits.sum().backward()
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None, key
        assert not parameter.grad.any(), key
    after = head.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("name", ["hourglass-52", "resnet-8", "conv-4"])
def test_instances_do_not_see_each_other(name: str) -> None:
    crops = torch.randn(4, 5, 32, 32)
    for head in (made(name), made(name).eval(), made(name, norm="batch").eval()):
        with torch.no_grad():
            together, alone = head.body(crops), head.body(crops[2:3])
            largest = float(alone.abs().max())
            torch.testing.assert_close(together[2:3], alone, atol=1e-5 * largest, rtol=0)


def test_statistics_of_the_batch_are_what_batch_normalisation_trains_with() -> None:
    crops = torch.randn(4, 5, 32, 32)
    head = made("conv-4", norm="batch")
    assert not torch.allclose(head.body(crops)[:1], head.body(crops[:1]), atol=1e-2)


def test_one_instance_at_1x1_cells_trains_with_batch_normalisation() -> None:
    logits = made("hourglass-52", norm="batch")(torch.randn(1, 5, 32, 32))
    assert logits.isfinite().all()


def reach(head: MaskHead) -> tuple[int, int]:
    """Rows and columns of the crop that the logit of cell (16, 16) depends on."""
    crops = torch.randn(1, 5, 32, 32, requires_grad=True)
    head.eval()(crops)[0, 16, 16].backward()
    assert crops.grad is not None
    touched = crops.grad[0].abs().amax(0) > 0
    return int(touched.any(1).sum()), int(touched.any(0).sum())


def test_heads_see_as_far_as_their_convolutions_reach() -> None:
    # With the statistics of evaluation a cell sees its surroundings alone.
    assert reach(made("conv-4", norm="batch", width=8)) == (9, 9)
    assert reach(made("resnet-4", norm="batch", width=8)) == (9, 9)
    assert 9 < reach(made("hourglass-10", norm="batch", width=8))[0] < 32
    assert reach(made("hourglass-52", norm="batch", width=8)) == (32, 32)


def test_an_hourglass_goes_down_to_one_cell_and_back() -> None:
    head = made("hourglass-52")
    sides = []
    for layer in head.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda *io: sides.append(io[2].shape[-1]))
    head(torch.randn(2, 5, 32, 32))
    assert set(sides) == {32, 16, 8, 4, 2, 1}


def test_groups_have_at_least_eight_channels_each() -> None:
    for width in (3, 8, 12, 100):
        for name in ("hourglass-20", "conv-4"):
            for layer in on_meta(replace(MASK_HEADS[name], width=width)).modules():
                if isinstance(layer, nn.GroupNorm):
                    channels = layer.num_channels
                    assert channels % layer.num_groups == 0
                    assert channels // layer.num_groups >= min(8, channels)
                    assert layer.num_groups <= 32


def test_an_untrained_head_is_certain_of_nothing() -> None:
    for name in ("conv-4", "hourglass-10", "resnet-8"):
        logits = made(name, width=8)(torch.randn(4, 5, 32, 32))
        assert logits.mean().item() == pytest.approx(LOGIT_BIAS, abs=1)
        assert 0.02 < logits.std().item() < 1


def test_the_last_weights_have_both_signs() -> None:
    for name in ("conv-4", "hourglass-20", "resnet-8"):
        weight = made(name, width=64).logits.weight
        assert weight.std().item() == pytest.approx(LOGIT_STD, rel=0.3)
        assert 0.25 < (weight > 0).float().mean().item() < 0.75


def test_weights_come_from_the_global_generator() -> None:
    crops = torch.randn(1, 5, 32, 32)
    assert torch.equal(made("hourglass-10")(crops), made("hourglass-10")(crops))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"kind": "unet"}, "kind of a mask head must be one of hourglass, resnet, conv"),
        ({"norm": "layer"}, "norm of a mask head must be one of group, batch, got 'layer'"),
        ({"depth": 50}, "'hourglass' must be one of 10, 20, 32, 52, 100, got 50"),
        ({"kind": "resnet", "depth": 10}, "'resnet' must be one of 4, 8, 12, 16, 20, got 10"),
        ({"kind": "conv", "depth": 0}, "depth of a mask head must be 1 or more, got 0"),
        ({"width": 0}, "width of a mask head must be 1 or more, got 0"),
        ({"width": 1.5}, "width of a mask head must be 1 or more, got 1.5"),
    ],
)
def test_a_head_that_cannot_be_built_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MaskHeadConfig(**fields)


def test_heads_are_found_by_name_and_by_fields() -> None:
    assert resolve_mask_head("resnet-12") == MaskHeadConfig("resnet", 12)
    fields = {"kind": "conv", "depth": 6, "width": 8, "norm": "batch"}
    assert resolve_mask_head(fields) == MaskHeadConfig("conv", 6, 8, "batch")
    with pytest.raises(ValueError, match="unknown mask head 'hourglass52'; known: hourglass-10"):
        create_mask_head("hourglass52", 50)
    with pytest.raises(ValueError, match="no mask head can be made of"):
        resolve_mask_head({"layers": 4})
    with pytest.raises(ValueError, match="in_channels must be 1 or more, got 0"):
        create_mask_head("conv-4", 0)
