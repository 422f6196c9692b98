"""What holds of every backbone of the catalogue."""

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

import perception
from perception.catalogue import FAMILIES, _changed, create, names
from perception.video_transformer import VideoTransformer

SMALL = (
    "vit_cifar",
    "vit_cifar_tokenlearner",
    "vit_micro_tokenfuser",
    "vivit_micro_tokenlearner",
    "coatnet_mini",
    "efficientnet_b0",
    "efficientnetv2_b0_quarter",
    "spinenet_mini",
)
"""One of each kind that a CPU runs in milliseconds."""


def images_for(model: nn.Module, height: int = 64, width: int = 64, batch: int = 2) -> torch.Tensor:
    frames = (3,) if isinstance(model, VideoTransformer) else ()
    rng = torch.Generator().manual_seed(0)
    return torch.rand((batch, *frames, 3, height, width), generator=rng)


def small(name: str) -> nn.Module:
    torch.manual_seed(0)
    return create(name, n_classes=5).eval()


def test_the_promised_names_are_there() -> None:
    assert {"coatnet_0", "efficientnetv2_s", "vit_b16", "vit_b16_tokenlearner"} <= set(names())
    assert {f"coatnet_{k}" for k in range(8)} <= set(names())
    assert {f"efficientnet_b{k}" for k in range(8)} <= set(names())
    assert perception.names() == names()
    assert perception.create is create
    assert len(names()) == sum(len(configs) for _, configs in FAMILIES)


@pytest.mark.parametrize("name", names())
def test_every_backbone_builds_without_memory_and_says_what_it_is(name: str) -> None:
    with torch.device("meta"):
        model = create(name, n_classes=7)
        images = torch.empty(images_for(model, 224, 224).shape)
        assert model.eval()(images).shape == (2, 7)
    assert model.width > 0
    assert model.stride >= 1
    assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = small(name).train()
    torch.manual_seed(1)
    images = images_for(model, batch=4)
    # A fuser's mixing starts from zeros, and lets the gradient through to others from then on.
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    without_chance(model)
    (model(images) * torch.randn(4, 5)).sum().backward()
    dead = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not dead


def without_chance(model: nn.Module) -> None:
    """No branch left out, so that all of them learn."""
    for module in model.modules():
        if hasattr(module, "rate"):
            module.rate = 0.0


@pytest.mark.parametrize("name", SMALL)
def test_images_of_a_batch_do_not_see_each_other(name: str) -> None:
    model = small(name)
    images = images_for(model, batch=3)
    with torch.inference_mode():
        together, alone = model(images), torch.cat([model(image[None]) for image in images])
        again = model(images)
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    assert torch.equal(together, again)


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_agrees_with_float32(name: str) -> None:
    model = small(name)
    images = images_for(model)
    with torch.inference_mode():
        exact = model.embed(images)
        rough = model.to(torch.bfloat16).embed(images.to(torch.bfloat16)).float()
    assert torch.nn.functional.cosine_similarity(exact, rough).min() > 0.995


@pytest.mark.parametrize("name", SMALL)
def test_weights_survive_a_file(name: str) -> None:
    model = small(name)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.add_(0.1)
    written = save(model.state_dict())
    torch.manual_seed(9)
    other = create(name, n_classes=5).eval()
    other.load_state_dict(load(written))
    images = images_for(model)
    with torch.inference_mode():
        assert torch.equal(model(images), other(images))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("height", "width"), [(48, 96), (37, 61)])
def test_other_sizes_work_or_are_refused_in_words(name: str, height: int, width: int) -> None:
    model = small(name)
    images = images_for(model, height, width)
    with torch.inference_mode():
        if name.startswith("vi") and height % model.stride:
            with pytest.raises(ValueError, match=f"multiples of the patch, {model.stride}"):
                model(images)
            return
        assert model(images).isfinite().all()
        found = model.feature_map(images)
    assert found.shape[-2:] == (-(-height // model.stride), -(-width // model.stride))


@pytest.mark.parametrize("name", SMALL)
def test_without_classes_a_network_gives_its_features(name: str) -> None:
    torch.manual_seed(0)
    model = create(name, n_classes=0, in_channels=3).eval()
    images = images_for(model)
    with torch.inference_mode():
        assert torch.equal(model(images), model.embed(images))
        assert model(images).shape == (2, model.width)


@pytest.mark.parametrize("name", SMALL)
def test_bad_images_are_refused(name: str) -> None:
    model = small(name)
    images = images_for(model)
    few = images[..., :1, :, :]
    for bad in (images[:0], images[..., :0], few, (images * 255).byte(), images[0, 0]):
        with pytest.raises(ValueError, match="must be"):
            model(bad)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_every_backbone_can_be_exported(name: str) -> None:
    model = small(name)
    images = images_for(model)
    exported = torch.export.export(model, (images,)).module()
    with torch.inference_mode():
        torch.testing.assert_close(exported(images), model(images), atol=1e-5, rtol=1e-5)


def test_fields_of_a_configuration_can_be_changed_by_name() -> None:
    with torch.device("meta"):
        model = create("vit_b16_tokenlearner", tokens=16, at=0.25)
        assert (model.config.tokens, model.config.learner_block) == (16, 3)
        clip = create("vivit_micro_tokenlearner", tokens=4, frames=6)
    assert (clip.config.spatial.tokens, clip.config.frames) == (4, 6)


def test_unknown_names_and_fields_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown backbone 'coatnet0'; perhaps coatnet_"):
        create("coatnet0")
    with pytest.raises(ValueError, match="known: vit_ti16"):
        create("qqq")
    with pytest.raises(ValueError, match="coatnet_0 has no depth; it has depths, "):
        create("coatnet_0", depth=3)
    with pytest.raises(ValueError, match="has no bogus"):
        create("vivit_micro", bogus=3)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        perception.nothing  # noqa: B018


def test_a_configuration_is_not_changed_by_what_is_made_of_it() -> None:
    config = dict(FAMILIES[0][1])["vit_cifar"]
    assert _changed(config, {"depth": 2}, "vit_cifar").depth == 2
    assert config.depth == 8
