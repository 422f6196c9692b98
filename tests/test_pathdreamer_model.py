"""Pathdreamer as a whole: what it answers, saving and loading, roll-outs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pathdreamer_cases import TINY, Arrays, make_guidance, painted_set, tiny

from learning.checkpoint import CheckpointError
from world_models.pathdreamer.batches import Example, Examples, WalkConfig, stack_guidance
from world_models.pathdreamer.inputs import GuidanceBatch
from world_models.pathdreamer.model import (
    Pathdreamer,
    load_world_model,
    save_world_model,
    shipped_world_models,
    to_bytes,
)
from world_models.pathdreamer.panoramas import Seen
from world_models.pathdreamer.rollouts import roll_out


def some_examples(count: int = 2, hops: tuple[int, int] = (1, 1)) -> list[Example]:
    walks = WalkConfig(context=(1, 1), hops=hops)
    examples = Examples(painted_set(0, 3), make_guidance, walks, seed=0)
    return [examples[k] for k in range(count)]


def some_batch(count: int = 2) -> GuidanceBatch:
    return stack_guidance([example.guidance for example in some_examples(count)])


def test_a_prediction_has_the_promised_shapes_and_ranges() -> None:
    found = tiny().predict(some_batch(), torch.Generator().manual_seed(0), probabilities=True)
    assert found.rgb is not None
    assert found.probabilities is not None
    assert found.semantic.shape == found.depth.shape == (2, 32, 64)
    assert found.semantic.dtype == np.uint8
    assert found.depth.dtype == np.float32
    assert found.rgb.shape == (2, 32, 64, 3)
    assert found.rgb.dtype == np.uint8
    assert (found.depth > 0).all()
    assert (found.depth <= TINY.max_depth).all()
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(found.probabilities.argmax(axis=1), found.semantic)


def test_a_fresh_model_copies_the_filled_guidance() -> None:
    examples = some_examples()
    found = tiny(awake=False).predict(stack_guidance([e.guidance for e in examples]))
    assert found.rgb is not None
    for row, example in enumerate(examples):
        np.testing.assert_array_equal(found.semantic[row], example.guidance.filled_semantic)
        filled = np.minimum(example.guidance.filled_depth, TINY.max_depth)
        np.testing.assert_allclose(found.depth[row], filled, rtol=0.006)  # the largest is held
        np.testing.assert_array_equal(found.rgb[row], example.guidance.filled_rgb)


def test_what_was_not_asked_for_is_not_there() -> None:
    found = tiny().predict(some_batch(), rgb=False)
    assert found.rgb is None
    assert found.probabilities is None


def test_the_same_seed_dreams_the_same_and_another_does_not() -> None:
    model, guidance = tiny(), some_batch(1)
    one, same, other = (
        model.predict(guidance, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.depth, same.depth)
    assert not np.array_equal(one.depth, other.depth)


def test_without_a_generator_or_at_temperature_zero_the_mean_is_taken() -> None:
    model, guidance = tiny(), some_batch(1)
    cold = model.predict(guidance, torch.Generator().manual_seed(1), temperature=0)
    np.testing.assert_allclose(cold.depth, model.predict(guidance).depth, rtol=1e-5)


def test_a_given_latent_is_used() -> None:
    model, guidance = tiny(), some_batch(1)
    drawn = model.predict(guidance, torch.Generator().manual_seed(1))
    again = model.predict(guidance, z=torch.from_numpy(drawn.z))
    np.testing.assert_allclose(again.depth, drawn.depth, rtol=1e-5)


def test_ideas_are_what_single_predictions_are() -> None:
    model, guidance = tiny(), some_batch()
    generator = torch.Generator().manual_seed(3)
    noises = [model.noise(len(guidance), guidance.size, generator) for _ in range(3)]
    with torch.inference_mode():
        ideas = list(model.structure.ideas(guidance, noises))
        for noise, idea in zip(noises, ideas, strict=True):
            alone = model.structure(guidance, noise)
            torch.testing.assert_close(idea.logits, alone.logits)
            torch.testing.assert_close(idea.depth, alone.depth)
    assert not torch.equal(ideas[0].logits, ideas[1].logits)


def test_samples_of_one_place_are_a_batch() -> None:
    model, guidance = tiny(), some_batch(1)
    many = model.predict(guidance.repeat(4), torch.Generator().manual_seed(0))
    assert many.depth.shape == (4, 32, 64)
    assert np.ptp(many.depth, axis=0).max() > 1e-3
    flat = model.predict(guidance.repeat(4))
    np.testing.assert_allclose(flat.depth[0], flat.depth[3], rtol=1e-5)


def test_predicting_leaves_the_mode_as_it_was() -> None:
    model = tiny().train()
    model.predict(some_batch(1))
    assert model.training


def test_temperatures_and_sizes_that_make_no_sense_are_refused() -> None:
    model = tiny()
    for temperature in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="temperature"):
            model.predict(some_batch(1), temperature=temperature)
    with pytest.raises(ValueError, match="multiples of 16"):
        model.predict(GuidanceBatch.empty(1, 24, 48))


def test_colours_beyond_the_range_are_clamped() -> None:
    picture = torch.tensor([-0.5, 0.5, 1.5]).view(1, 3, 1, 1)
    assert to_bytes(picture).tolist() == [[[[0, 128, 255]]]]


# Checkpoints


@pytest.mark.parametrize("half", [False, True])
def test_a_model_survives_the_disk(tmp_path: Path, half: bool) -> None:
    model = tiny()
    save_world_model(model, tmp_path / "dream", {"step": 3}, half=half)
    found = load_world_model(tmp_path / "dream")
    assert found.config == model.config
    assert not found.training
    guidance = some_batch(1)
    np.testing.assert_allclose(
        found.predict(guidance).depth, model.predict(guidance).depth, rtol=2e-2 if half else 0
    )
    names = {path.name for path in (tmp_path / "dream").iterdir()}
    assert names == {"config.json", "model.safetensors", "README.md"}


def test_half_precision_halves_the_file(tmp_path: Path) -> None:
    model = Pathdreamer("small")
    for name, half in (("full", False), ("half", True)):
        save_world_model(model, tmp_path / name, half=half)
    full, half_size = (
        (tmp_path / n / "model.safetensors").stat().st_size for n in ("full", "half")
    )
    assert full < 20e6
    assert half_size < 0.51 * full


def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(tmp_path: Path) -> None:
    model = tiny()
    with torch.no_grad():
        model.image.head.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(CheckpointError, match="NaN"):
        save_world_model(model, tmp_path / "dream")
    assert not (tmp_path / "dream").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "metnet2"}, "pathdreamer"),
        ({"config": {"height": 64, "colour": 1}}, "colour"),
        ({"config": {"height": 1000}}, "multiples of 16"),
        ({"config": {}}, "must be|missing|fit"),  # the networks of another size
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    save_world_model(tiny(), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=message):
        load_world_model(tmp_path)


def test_a_name_that_is_nothing_lists_what_is_shipped() -> None:
    with pytest.raises(CheckpointError, match="shipped: "):
        load_world_model("no-such-dream")


@pytest.mark.parametrize("name", sorted(shipped_world_models()))
def test_a_shipped_model_loads_and_dreams(name: str) -> None:
    model = load_world_model(name)
    height = model.config.height
    found = model.predict(GuidanceBatch.empty(1, height, 2 * height))
    assert np.isfinite(found.depth).all()


# Roll-outs


def test_walks_of_one_hop_are_not_rolled_out() -> None:
    examples = some_examples(2)
    found = roll_out(tiny(), examples, make_guidance, torch.Generator().manual_seed(0))
    for guidance, example in zip(found, examples, strict=True):
        assert guidance is example.guidance


def test_a_roll_out_projects_what_was_dreamed_beside_what_was_seen() -> None:
    examples = [e for e in some_examples(8, hops=(2, 3)) if len(e.targets) > 1]
    assert examples
    found = roll_out(tiny(), examples, make_guidance, torch.Generator().manual_seed(0))
    for guidance, example in zip(found, examples, strict=True):
        known = example.guidance.valid
        assert guidance.valid.sum() > known.sum()
        # What was seen stays, unless something dreamed lies before it.
        kept = guidance.depth[known] == example.guidance.depth[known]
        assert (guidance.depth[known] <= example.guidance.depth[known] + 1e-4).all()
        assert kept.any()


def test_only_what_the_memory_did_not_show_is_kept_of_a_dream() -> None:
    memories: list[list[Seen]] = []

    def watching(seen: list[Seen], position: np.ndarray) -> Arrays:
        memories.append(list(seen))
        return make_guidance(seen, position)

    example = next(e for e in some_examples(8, hops=(2, 2)) if len(e.targets) == 2)
    roll_out(tiny(), [example], watching, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    dreamed = memories[-1][-1]
    shown = make_guidance(example.context, example.targets[0].position).valid
    np.testing.assert_array_equal(dreamed.depth == 0, shown)
    np.testing.assert_array_equal(dreamed.position, example.targets[0].position)
