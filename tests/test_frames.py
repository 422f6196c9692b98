"""Frames, normalisers and encoders: exact inverses, invariance, what is and is not seen."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_cases import demonstrations, small_config

from agents import POLICIES, make_policy
from agents.encoders import Mlp, ObservationEncoder, PixelEncoder, SpatialSoftmax, random_shift
from agents.frame import FieldSpec, FrameReader, Pose, from_frame, to_frame
from agents.normalization import ActionNormalizer, ObservationNormalizer

FIELDS = (
    FieldSpec("block_xy", 2, "point"),
    FieldSpec("pair_xy", 4, "point"),
    FieldSpec("speed", 2, "vector"),
    FieldSpec("slot_xy", 2, "point"),
    FieldSpec("slot_heading", 2, "heading"),
    FieldSpec("block_yaw4", 2, "yaw4"),
    FieldSpec("phase", 3, "scalar"),
)
SIZE = sum(field.size for field in FIELDS)

angles = st.floats(-7, 7)
metres = st.floats(-2, 2)


def pose(x: float, y: float, yaw: float) -> Pose:
    rotation = torch.tensor([[math.cos(yaw), math.sin(yaw)]], dtype=torch.float64)
    return Pose(torch.tensor([[x, y]], dtype=torch.float64), rotation)


def world(rng: np.random.Generator, yaw: float, at: np.ndarray) -> torch.Tensor:
    """The same scene, standing elsewhere: turned by `yaw` about the origin, then moved."""
    draws = np.random.default_rng(3)
    points, speed = draws.normal(size=(4, 2)), draws.normal(size=2)
    slot_yaw, block_yaw = draws.uniform(-3, 3, 2) + yaw
    c, s = math.cos(yaw), math.sin(yaw)
    turn = np.array([[c, -s], [s, c]])
    points = points @ turn.T + at
    values = [
        *points[0],
        *points[1],
        *points[2],
        *(turn @ speed),
        *points[3],
        math.cos(slot_yaw),
        math.sin(slot_yaw),
        math.cos(4 * block_yaw),
        math.sin(4 * block_yaw),
        0.1,
        0.2,
        0.3,
    ]
    return torch.tensor([values], dtype=torch.float64)


@given(st.integers(0, 2**31), metres, metres, angles)
@settings(max_examples=60, deadline=None)
def test_out_of_a_frame_undoes_into_it(seed, x, y, yaw):
    values = torch.randn(1, 3, SIZE, generator=torch.Generator().manual_seed(seed)).double()
    there = to_frame(values, FIELDS, pose(x, y, yaw))
    torch.testing.assert_close(from_frame(there, FIELDS, pose(x, y, yaw)), values)
    torch.testing.assert_close(
        to_frame(from_frame(values, FIELDS, pose(x, y, yaw)), FIELDS, pose(x, y, yaw)), values
    )


@given(metres, metres, angles)
@settings(max_examples=60, deadline=None)
def test_a_scene_looks_the_same_in_its_frame_wherever_it_stands(x, y, yaw):
    rng = np.random.default_rng(0)
    reader = FrameReader("slot", FIELDS)
    still, moved = world(rng, 0.0, np.zeros(2)), world(rng, yaw, np.array([x, y]))
    torch.testing.assert_close(
        to_frame(moved, FIELDS, reader(moved)), to_frame(still, FIELDS, reader(still))
    )


def test_a_quarter_turn_by_hand():
    values = torch.tensor([[3.0, 1.0, 2.0, 1.0]])
    fields = (FieldSpec("a_xy", 2, "point"), FieldSpec("v", 2, "vector"))
    at = Pose(torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0, 1.0]]))  # faces +y
    # The point lies 2 m along +x of the world: that is to the right, -y in the frame.
    torch.testing.assert_close(to_frame(values, fields, at), torch.tensor([[0.0, -2, 1, -2]]))


def test_the_frame_itself_becomes_the_origin_looking_ahead():
    reader = FrameReader("slot", FIELDS)
    state = world(np.random.default_rng(0), 0.3, np.array([1.0, 2.0]))
    local = to_frame(state, FIELDS, reader(state))[0]
    torch.testing.assert_close(local[8:12], torch.tensor([0.0, 0, 1, 0], dtype=torch.float64))


def test_a_heading_without_length_counts_as_yaw_zero_and_a_long_one_is_shortened():
    reader = FrameReader("slot", FIELDS)
    state = torch.zeros(2, SIZE)
    state[1, 10:12] = torch.tensor([0.0, 3.0])
    assert reader(state).rotation.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_an_unknown_frame_lists_the_known_ones():
    with pytest.raises(ValueError, match="known frames: slot"):
        FrameReader("block", FIELDS)
    with pytest.raises(ValueError, match="known frames: none"):
        FrameReader("slot", FIELDS[:1])


def turned(state: np.ndarray, yaw: float, x: float, y: float) -> np.ndarray:
    """A state of `policy_cases` with everything turned about the origin, then moved."""
    c, s = math.cos(yaw), math.sin(yaw)
    turn = np.array([[c, -s], [s, c]])
    out = state.astype(np.float64).copy()
    for start, is_point in ((0, True), (2, True), (4, False)):
        out[..., start : start + 2] = out[..., start : start + 2] @ turn.T
        if is_point:
            out[..., start : start + 2] += (x, y)
    return out.astype(np.float32)


@pytest.mark.parametrize("method", POLICIES)
@pytest.mark.parametrize("n_obs_steps", [1, 2])
def test_turning_the_world_turns_the_action(method, n_obs_steps):
    torch.manual_seed(0)
    decode = {"mdn": {"decode": "mean"}, "binned": {"decode": "argmax"}}.get(method, {})
    config = small_config(method, frame="slot", n_obs_steps=n_obs_steps, **decode)
    policy = make_policy(method, demonstrations(), config).eval()
    # Wide bounds, so that the box, which does not turn, cuts nothing off.
    policy._low, policy._high = policy._low * 100, policy._high * 100
    states = demonstrations().observations["state"][:3]

    def episode(yaw: float, x: float, y: float) -> np.ndarray:
        policy.reset(5)
        return np.stack([policy.act(turned(state, yaw, x, y)) for state in states])

    still = episode(0.0, 0.0, 0.0)
    yaw = 1.1
    c, s = math.cos(yaw), math.sin(yaw)
    expected = still @ np.array([[c, -s], [s, c]]).T
    np.testing.assert_allclose(episode(yaw, 0.7, -0.4), expected, atol=2e-3)


def test_training_targets_are_the_same_wherever_the_world_stands():
    from policy_cases import batch_of

    from learning.batches import Batch

    policy = make_policy("mse", demonstrations(), small_config("mse", frame="slot")).eval()
    batch = batch_of(policy, demonstrations())
    yaw = 0.8
    c, s = math.cos(yaw), math.sin(yaw)
    moved = Batch(
        {"state": torch.as_tensor(turned(batch.observations["state"].numpy(), yaw, 0.3, 0.1))},
        batch.actions @ torch.tensor([[c, -s], [s, c]]).T,
    )
    first, second = (policy.validate(b, torch.Generator()) for b in (batch, moved))
    assert first == pytest.approx(second, rel=1e-3)


# Normalisers.


@given(st.integers(0, 2**31), st.floats(0.01, 100), st.floats(-100, 100))
@settings(max_examples=40, deadline=None)
def test_actions_come_back_and_lie_inside_the_margin(seed, scale, shift):
    data = torch.randn(50, 3, generator=torch.Generator().manual_seed(seed)) * scale + shift
    normalizer = ActionNormalizer(3)
    normalizer.fit(data)
    out = normalizer(data)
    # 5 % of the range at either end: the extremes come to 1 / 1.1.
    torch.testing.assert_close(out.amax(0), torch.full((3,), 1 / 1.1), atol=2e-3, rtol=0)
    torch.testing.assert_close(out.amin(0), torch.full((3,), -1 / 1.1), atol=2e-3, rtol=0)
    torch.testing.assert_close(normalizer.inverse(out), data, atol=1e-4 * scale, rtol=1e-4)


def test_action_bounds_stay_inside_the_action_space():
    normalizer = ActionNormalizer(2)
    data = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    normalizer.fit(data, torch.tensor([-1.02, -torch.inf]), torch.tensor([5.0, torch.inf]))
    torch.testing.assert_close(normalizer.low, torch.tensor([-1.02, -1.1]))
    torch.testing.assert_close(normalizer.high, torch.tensor([1.1, 1.1]))


def test_an_entry_that_never_varies_decodes_to_its_constant():
    normalizer = ActionNormalizer(2)
    normalizer.fit(torch.tensor([[0.25, 0.0], [0.25, 1.0]]))
    out = normalizer.inverse(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
    torch.testing.assert_close(out[:, 0], torch.tensor([0.25, 0.25]), atol=1e-4, rtol=0)
    assert torch.isfinite(normalizer(torch.tensor([[0.25, 0.5]]))).all()


def test_a_constant_observation_does_not_explode_when_it_moves():
    normalizer = ObservationNormalizer(2)
    rows = torch.stack((torch.full((100,), 0.3), torch.linspace(-1, 1, 100)), dim=1)
    normalizer.fit(rows)
    out = normalizer(rows)
    torch.testing.assert_close(out[:, 1].std(correction=0), torch.tensor(1.0))
    assert float(out[:, 0].abs().max()) < 1e-3
    assert float(normalizer(torch.tensor([[0.9, 0.0]])).abs().max()) <= 10


def test_an_entry_that_hardly_varied_is_left_out_however_far_it_is_later() -> None:
    """Weights on it were never trained: two slots 0.02 mm further apart made policies fail."""
    normalizer = ObservationNormalizer(3)
    torch.manual_seed(0)
    rows = torch.stack([torch.randn(500), torch.full((500,), 0.7), 1e-5 * torch.randn(500)], dim=1)
    normalizer.fit(rows)
    later = normalizer(torch.tensor([[0.5, 0.7 + 1e-3, 2.0]]))
    assert later[0, 0] != 0
    assert later[0, 1:].tolist() == [0.0, 0.0]
    # As it comes back from a file.
    again = ObservationNormalizer(3)
    again.load_state_dict(normalizer.state_dict())
    assert torch.equal(again(rows), normalizer(rows))


@pytest.mark.parametrize("normalizer", [ObservationNormalizer(2), ActionNormalizer(2)])
def test_normalisers_refuse_what_they_cannot_fit(normalizer):
    with pytest.raises(ValueError, match="at least one row; got none"):
        normalizer.fit(torch.zeros(0, 2))
    with pytest.raises(ValueError, match="finite"):
        normalizer.fit(torch.tensor([[0.0, torch.nan]]))


# Encoders.


def encoder(**changes: Any) -> ObservationEncoder:
    settings: dict[str, Any] = {
        "shapes": {"pixels": (32, 40, 3)},
        "n_obs_steps": 2,
        "width": 8,
        "depth": 2,
        "residual": False,
        "dropout": 0.0,
        "activation": "relu",
        "conv_channels": (4, 4),
        "shift": 4,
    }
    return ObservationEncoder(**{**settings, **changes})


@pytest.mark.parametrize("size", [(96, 96), (24, 32), (17, 19)])
def test_pixel_encoders_take_images_of_any_size(size):
    net = PixelEncoder(6, (4, 8, 8))
    out = net(torch.randint(0, 256, (2, 2, *size, 3), dtype=torch.uint8)).detach()
    assert out.shape == (2, net.n_out) == (2, 16)
    assert float(out.abs().max()) <= 1


def test_the_spatial_softmax_points_at_the_peak():
    features = torch.zeros(1, 2, 5, 9)
    features[0, 0, 0, 8] = 100  # top right
    features[0, 1, 4, 2] = 100  # bottom, a quarter from the left
    out = SpatialSoftmax()(features)[0]
    torch.testing.assert_close(out, torch.tensor([1.0, -0.5, -1.0, 1.0]), atol=1e-4, rtol=0)


def test_random_shifts_move_whole_histories_by_whole_pixels():
    ramp = torch.arange(20)[:, None] * 10 + torch.arange(30)[None] * 1
    pixels = ramp[None, None, :, :, None].expand(6, 2, -1, -1, 3).to(torch.uint8)
    out = random_shift(pixels, 3, torch.Generator().manual_seed(0))
    assert out.shape == pixels.shape
    assert out.dtype == torch.uint8
    shifts = set()
    for image in out:
        assert torch.equal(image[0], image[1])
        dy = (int(image[0, 10, 15, 0]) - int(pixels[0, 0, 10, 15, 0]) + 35) // 10 - 3
        dx = int(image[0, 10, 15, 0]) - int(pixels[0, 0, 10, 15, 0]) - 10 * dy
        inner = image[0, 4:-4, 4:-4, 0].int()
        assert torch.equal(inner, ramp[4 + dy : 16 + dy, 4 + dx : 26 + dx].int() % 256)
        shifts.add((dx, dy))
    assert len(shifts) > 2
    assert max(abs(v) for shift in shifts for v in shift) <= 3


def test_shifts_happen_in_training_only():
    torch.manual_seed(0)
    net = encoder()
    pixels = {"pixels": torch.randint(0, 256, (4, 2, 32, 40, 3), dtype=torch.uint8)}
    generator = torch.Generator().manual_seed(0)
    net.train()
    assert not torch.equal(net(pixels, generator), net(pixels, generator))
    net.eval()
    assert torch.equal(net(pixels, generator), net(pixels, generator))


def test_every_frame_of_the_history_is_seen():
    torch.manual_seed(0)
    net = encoder(shapes={"state": (3,), "pixels": (32, 40, 3)}).eval()
    obs = {
        "state": torch.randn(1, 2, 3),
        "pixels": torch.randint(0, 256, (1, 2, 32, 40, 3), dtype=torch.uint8),
    }
    code = net(obs)
    for key in obs:
        for step in range(2):
            changed = {name: value.clone() for name, value in obs.items()}
            changed[key][:, step] = changed[key][:, step].flip(1 if key == "pixels" else -1)
            assert not torch.allclose(net(changed), code), (key, step)


def test_residual_blocks_use_all_their_layers():
    """Fault 9: the public residual block feeds its input to both layers, so one is dead."""
    torch.manual_seed(0)
    net = Mlp(3, 8, 4, residual=True)
    assert sum(isinstance(m, torch.nn.Linear) for m in net.modules()) == 5
    x = torch.randn(16, 3)
    before = net(x)
    for module in net.modules():
        if isinstance(module, torch.nn.Linear):
            kept = module.weight.detach().clone()
            with torch.no_grad():
                module.weight.mul_(0.5)
            assert not torch.allclose(net(x), before)
            with torch.no_grad():
                module.weight.copy_(kept)
