"""Policies that see through a backbone of `perception`."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from policy_cases import batch_of, demonstrations, observation_at, small_config

from agents import load_policy, make_policy, save_policy
from agents.encoders import BackboneEncoder, PixelEncoder

BACKBONES = ("coatnet_mini", "efficientnetv2_b0_quarter", "vit_micro", "vit_micro_tokenlearner")


def seeing(method: str, backbone: str, observation: str = "both"):
    torch.manual_seed(0)
    demos = demonstrations(observation, n=12)
    pixels = np.ascontiguousarray(demos.observations["pixels"][:, :16])  # patches of 8 tile it
    demos = replace(demos, observations={**demos.observations, "pixels": pixels})
    return make_policy(method, demos, small_config(method, backbone=backbone, n_obs_steps=2)), demos


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_parameter_of_the_backbone_gets_a_gradient(backbone: str) -> None:
    policy, demos = seeing("mse", backbone)
    loss, _ = policy.loss(batch_of(policy, demos), torch.Generator().manual_seed(0))
    loss.backward()
    without = [
        name
        for name, parameter in policy.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    assert without == []


@pytest.mark.parametrize("method", ["ibc", "mdn"])
def test_a_policy_with_a_backbone_is_saved_and_decides_the_same(
    method: str, tmp_path: Path
) -> None:
    policy, demos = seeing(method, "coatnet_mini")
    policy.fit(demos)
    policy.eval()
    save_policy(policy, tmp_path / "saved", {"steps": 0}, "# A card\n")
    loaded = load_policy(tmp_path / "saved")
    observation = observation_at(demos, slice(0, 4))
    policy.reset(3)
    loaded.reset(3)
    np.testing.assert_array_equal(policy.act(observation), loaded.act(observation))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_code_tells_where_a_thing_is(backbone: str) -> None:
    """The pooled features of a plain convolutional network would tell the two hardly apart."""
    torch.manual_seed(0)
    encoder = BackboneEncoder(backbone, 3).eval()
    images = torch.full((2, 1, 64, 64, 3), 128, dtype=torch.uint8)
    images[0, 0, 16:24, 16:24], images[1, 0, 40:48, 40:48] = 255, 255
    with torch.no_grad():
        one, other = encoder(images)
    assert one.shape == (encoder.n_out,)
    assert (one - other).abs().max() > 1e-3 * one.abs().max()


@pytest.mark.parametrize("backbone", ["coatnet_mini", "efficientnetv2_b0_quarter", "vit_micro"])
def test_where_a_channel_looks_moves_with_the_picture(backbone: str) -> None:
    torch.manual_seed(0)
    encoder = BackboneEncoder(backbone, 3).eval()
    image = torch.full((1, 1, 64, 64, 3), 128, dtype=torch.uint8)
    image[0, 0, 8:24, 8:24] = 255
    with torch.no_grad():
        encoder.where[0].weight.mul_(1000)  # as a training would: one cell stands out
        points = encoder(torch.cat((image, image.roll(32, 2), image.roll(32, 3))))[:, -64:]
    x, y = points[:, :32], points[:, 32:]
    assert (y[1] - y[0]).max() > 0.25
    assert (x[2] - x[0]).max() > 0.25


def test_pixels_come_in_as_for_the_small_encoder() -> None:
    """The backbone sees the frames' channels in their order, in [-1, 1], then x and y."""
    encoder = BackboneEncoder("vit_micro_tokenlearner", 6)  # without a map
    seen: list[torch.Tensor] = []
    encoder.network.forward = lambda images: seen.append(images) or images.mean(dim=(2, 3))  # type: ignore[method-assign]
    pixels = torch.randint(0, 256, (3, 2, 8, 16, 3), dtype=torch.uint8)
    encoder(pixels)
    np.testing.assert_allclose(seen[0][:, 4], pixels[:, 1, :, :, 1].float() / 127.5 - 1, atol=1e-6)
    np.testing.assert_allclose(seen[0][1, 6, 3], np.linspace(-1, 1, 16), atol=1e-6)
    np.testing.assert_allclose(seen[0][2, 7, :, 5], np.linspace(-1, 1, 8), atol=1e-6)


def test_without_a_name_the_small_encoder_sees_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    policy, _ = seeing("mse", "")
    assert isinstance(policy.encoder.pixels, PixelEncoder)
    with pytest.raises(ValueError, match=r"unknown backbone 'coatnet_minni'; perhaps coatnet_mini"):
        seeing("mse", "coatnet_minni")
    save_policy(policy, tmp_path / "saved", {"steps": 0}, "# A card\n")
    settings = json.loads((tmp_path / "saved/config.json").read_text())
    settings["config"]["backbone"] = "no such network"
    (tmp_path / "saved/config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="no such network"):
        load_policy(tmp_path / "saved")
