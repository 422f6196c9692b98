"""Views of blocks' faces, relations between points, and the heads that use them."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_cases import batch_of, fit, small_config

from agents import Policy, make_policy
from agents.frame import FieldSpec
from agents.implicit_bc.policy import ImplicitPolicy
from agents.relations import FINE, Relations
from agents.view_heads import LIKELY, ViewEnergy, ViewMixture, likeliest_views
from agents.views import FACES, ViewEncoder, ViewReader
from learning.demonstrations import Demonstrations

FIELDS = [
    {"name": "target_xy", "size": 2, "kind": "point"},
    {"name": "red1_xy", "size": 2, "kind": "point"},
    {"name": "red1_yaw4", "size": 2, "kind": "yaw4"},
    {"name": "blue1_xy", "size": 2, "kind": "point"},
    {"name": "blue1_yaw4", "size": 2, "kind": "yaw4"},
    {"name": "blue2_xy", "size": 2, "kind": "point"},
    {"name": "blue2_yaw4", "size": 2, "kind": "yaw4"},
]
ACTION_FIELDS = [
    {"name": "start_xy", "size": 2, "kind": "point"},
    {"name": "push_xy", "size": 2, "kind": "vector"},
]
GAP = 0.045
VARIANTS: dict[str, dict[str, Any]] = {
    "mse": {},
    "mdn": {"n_components": 2},
    "ibc": {
        "negatives": (("proposal", 0.5), ("uniform", 0.5)),
        "proposal": {"hidden": 0, "n_components": 2, "min_std": 0.2},
        "dfo": {"n_samples": 128, "noise_std": 0.02},
    },
}


def reader(*groups: str, n_obs_steps: int = 1) -> ViewReader:
    fields = [FieldSpec.parse(field) for field in FIELDS]
    action_fields = [FieldSpec.parse(field) for field in ACTION_FIELDS]
    return ViewReader(groups, fields, action_fields, n_obs_steps=n_obs_steps)


def state_of(blocks: np.ndarray) -> np.ndarray:
    """State of `(3, 3)` x, y, yaw of red1, blue1, blue2."""
    parts = [[0.25, 0.0]]
    for x, y, yaw in blocks:
        parts += [[x, y], [math.cos(4 * yaw), math.sin(4 * yaw)]]
    return np.concatenate(parts).astype(np.float32)


def behind(block: np.ndarray, face: int, length: float = 0.05) -> np.ndarray:
    """The push of `length` through the centre of a face of a block."""
    yaw = block[2] + face * math.pi / 2
    forward = np.array([math.cos(yaw), math.sin(yaw)])
    return np.concatenate([block[:2] - GAP * forward, length * forward]).astype(np.float32)


def demonstrations(n: int = 80, seed: int = 0, choose: str = "random") -> Demonstrations:
    """Pushes on a face of the red block; which face is random, or always the one most along x."""
    rng = np.random.default_rng(seed)
    states, actions = [], []
    for _ in range(n):
        blocks = np.column_stack(
            [np.array([0.3, 0.4, 0.5]) + rng.uniform(-0.02, 0.02, 3), rng.uniform(-0.3, 0.3, 3),
             rng.uniform(0, 2 * math.pi, 3)]
        )  # fmt: skip
        faces = blocks[0, 2] + np.arange(FACES) * math.pi / 2
        face = int(rng.integers(FACES)) if choose == "random" else int(np.argmax(np.cos(faces)))
        states.append(state_of(blocks))
        actions.append(behind(blocks[0], face))
    return Demonstrations(
        observations={"state": np.array(states)},
        actions=np.array(actions),
        rewards=np.zeros(n, np.float32),
        episode_offsets=np.arange(n + 1, dtype=np.int64),
        action_low=np.array([0.1, -0.5, -0.15, -0.15], np.float32),
        action_high=np.array([0.7, 0.5, 0.15, 0.15], np.float32),
        meta={"observation_fields": FIELDS, "action_fields": ACTION_FIELDS},
    )


def displacements() -> Demonstrations:
    """The same scenes with displacements for actions: they start nowhere."""
    demos = demonstrations()
    rng = np.random.default_rng(0)
    return dataclasses.replace(
        demos,
        actions=rng.uniform(-0.03, 0.03, (len(demos), 2)).astype(np.float32),
        action_low=np.full(2, -1, np.float32),
        action_high=np.full(2, 1, np.float32),
        meta={
            "observation_fields": FIELDS,
            "action_fields": [{"name": "delta_xy", "size": 2, "kind": "vector"}],
        },
    )


def build(method: str, demos: Demonstrations | None = None, **changes: Any) -> Policy:
    torch.manual_seed(0)
    config = small_config(method, **{**VARIANTS[method], "views": ("red", "blue"), **changes})
    return make_policy(method, demos or demonstrations(), config)


angles = st.floats(-math.pi, math.pi)
lengths = st.floats(-0.2, 0.2)


@settings(max_examples=50, deadline=None)
@given(st.lists(lengths, min_size=4, max_size=4), angles, lengths, lengths)
def test_world_undoes_local(action: list[float], yaw: float, x: float, y: float) -> None:
    pose = torch.tensor([[x, y, math.cos(yaw), math.sin(yaw)]])
    look = reader("red")
    raw = torch.tensor([action])
    assert torch.allclose(look.world(look.local(raw, pose), pose), raw, atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(angles, st.integers(0, 2), st.integers(0, 3))
def test_a_push_is_owned_by_the_face_it_lands_on(yaw: float, block: int, face: int) -> None:
    blocks = np.array([[0.3, 0.0, 0.3], [0.4, 0.2, 1.0], [0.5, -0.2, 2.0]])
    blocks[block, 2] = yaw
    look = reader("red", "blue")
    state = torch.as_tensor(state_of(blocks))[None]
    poses = look.poses(state)
    owner = look.owner(torch.as_tensor(behind(blocks[block], face))[None, None], poses)
    assert int(owner) // FACES == block
    seen = look.local(torch.as_tensor(behind(blocks[block], face))[None], poses[:, int(owner)])
    assert torch.allclose(seen, torch.tensor([[-GAP, 0.0, 0.05, 0.0]]), atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(angles, lengths, lengths)
def test_views_see_the_same_wherever_the_scene_stands(yaw: float, dx: float, dy: float) -> None:
    blocks = np.array([[0.3, 0.0, 0.1], [0.4, 0.2, 1.0], [0.5, -0.2, 2.0]])
    turn = np.array([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]])
    moved = np.column_stack([blocks[:, :2] @ turn.T + [dx, dy], blocks[:, 2] + yaw])
    look = reader("red", "blue")

    def others(blocks: np.ndarray) -> np.ndarray:
        state = torch.as_tensor(state_of(blocks))[None]
        features = look.features(state[:, None], look.poses(state))[0]
        seen = features[:, 2 + 4 + 4 :].numpy()  # after own kind, own pose and the target
        return np.array(sorted(np.round(seen, 2).tolist()))

    # The four faces of a block may be numbered from another one after the turn: compare as sets.
    assert np.allclose(others(blocks), others(moved), atol=0.03)


def test_a_view_is_told_how_far_points_moved_in_its_own_frame() -> None:
    before = np.array([[0.3, 0.0, math.pi / 2], [0.4, 0.2, 0.0], [0.6, -0.2, 0.0]])
    after = before.copy()
    after[0, :2] += (0.01, 0.02)  # red1
    after[1, :2] += (0.03, -0.04)  # blue1, the nearer of the others
    states = np.stack([state_of(before), state_of(after)])
    states[1, 0] += 0.05  # the finger moved 50 mm in x
    states = torch.as_tensor(states)[None]
    look = reader("red", "blue", n_obs_steps=2)
    poses = look.poses(states[:, -1])
    features = look.features(states, poses)[0]
    assert features.shape == (12, look.n_features)
    # Which of red1's views looks along y: there x of the world is right, which is -y of the view.
    along_y = int(poses[0, :4, 3].argmax())
    seen = features[along_y].numpy()
    still = reader("red", "blue").features(states[:, -1:], poses)[0, along_y].numpy()
    own, finger = 2 + 4 + 2 + 2, 2
    assert np.allclose(seen[:own], still[:own])
    assert np.allclose(seen[own : own + finger], [0.0, -0.05], atol=1e-6)
    assert np.allclose(seen[own + 2 : own + 4], [0.02, -0.01], atol=1e-6)
    others = seen[own + 4 :].reshape(2, 10)
    assert np.allclose(others[0, 6:8], [-0.04, -0.03], atol=1e-6)
    assert np.allclose(others[1, 6:8], 0.0)
    assert np.allclose(np.delete(others, (6, 7), axis=1), still[own:].reshape(2, 8))


@pytest.mark.parametrize("actions", [demonstrations, displacements])
@pytest.mark.parametrize("n_obs_steps", [1, 2])
@pytest.mark.parametrize("method", VARIANTS)
def test_every_parameter_of_a_policy_with_views_gets_a_gradient(
    method: str, n_obs_steps: int, actions: Callable[[], Demonstrations]
) -> None:
    policy = build(method, actions(), n_obs_steps=n_obs_steps)
    loss, _ = policy.loss(batch_of(policy, actions()), torch.Generator().manual_seed(0))
    loss.backward()
    dead = [n for n, p in policy.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


def test_the_mixture_over_views_integrates_to_one() -> None:
    policy = build("mdn")
    policy.encoder.std.fill_(0.2)  # wide components, which random points can find
    demos = demonstrations(1)
    code, _ = policy._encode({"state": torch.as_tensor(demos.observations["state"])[:, None]}, None)
    mixture = policy.head(code.detach())
    assert isinstance(mixture, ViewMixture)
    draws = mixture.sample(20_000, torch.Generator().manual_seed(0))
    # E_q[1 / q] over a box that q's own draws fill is its volume; use a wide Gaussian instead:
    # E_g[q / g] = 1 for any g that covers q.
    mean, std = draws.mean(1, keepdim=True).detach(), 2 * draws.std(1, keepdim=True).detach()
    noise = torch.randn(draws.shape, generator=torch.Generator().manual_seed(1))
    log_g = (-0.5 * noise.square() - std.log() - 0.5 * math.log(2 * math.pi)).sum(-1)
    ratio = (mixture.log_prob(mean + std * noise) - log_g).exp().mean().detach()
    assert 0.85 < float(ratio) < 1.15


def test_the_ranking_loss_starts_at_chance() -> None:
    policy = build("ibc", n_negatives=31)
    policy.energy.out.weight.data.zero_()
    batch = batch_of(policy, demonstrations())
    _, logs = policy.loss(batch, torch.Generator().manual_seed(0))
    assert float(logs["info_nce"]) == pytest.approx(math.log(32), abs=1e-5)


@pytest.mark.learning
def test_the_implicit_policy_lands_on_a_face_where_regression_lands_on_the_block() -> None:
    """Four faces are equally right: their mean is the block's centre."""
    demos, fresh = demonstrations(400), demonstrations(20, seed=1)
    gaps = {}
    for method in ("mse", "ibc"):
        torch.manual_seed(0)
        config = small_config(method, **VARIANTS[method], views=("red", "blue"))
        policy = make_policy(method, demos, config)
        fit(policy, demos, 200)
        policy.reset(seed=0)
        actions = policy.act(fresh.observations["state"])
        gaps[method] = np.linalg.norm(actions[:, :2] - fresh.observations["state"][:, 2:4], axis=1)
    assert np.median(np.abs(gaps["ibc"] - GAP)) < 0.004
    assert np.median(gaps["mse"]) < 0.02


def test_a_frame_views_and_pixels_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="exclude"):
        build("mse", frame="red1")
    with pytest.raises(ValueError, match="horizon 1"):
        build("mse", horizon=2)
    with pytest.raises(ValueError, match=r"no block.*blue1, blue2, red1"):
        build("mse", views=("green",))
    with pytest.raises(ValueError, match="no heads for views"):
        make_policy("binned", demonstrations(), {"views": ("red",), "width": 16})


@pytest.mark.parametrize(
    ("method", "eyes", "n_obs_steps"),
    [
        *[("mse", "focus", 1), ("mse", "focus", 2), ("mse", "views", 1), ("mdn", "views", 1)],
        ("ibc", "views", 2),
    ],
)
def test_displacements_turn_with_the_scene(method: str, eyes: str, n_obs_steps: int) -> None:
    """A policy gives the turned action in the turned scene; one that draws, the same energy."""
    groups = ("red", "blue")
    policy = build(
        method, displacements(), **{"views": (), eyes: groups}, world=False, n_obs_steps=n_obs_steps
    )
    blocks = np.array([[0.3, 0.0, 0.1], [0.4, 0.2, 1.0], [0.5, -0.2, 2.0]])
    later = blocks + np.array([[0.01, -0.02, 0.05], [0.0, 0.0, 0.0], [0.02, 0.0, 0.0]])

    def states(turn: np.ndarray, yaw: float) -> Iterator[np.ndarray]:
        for scene in (blocks, later):
            state = state_of(np.column_stack([scene[:, :2] @ turn.T, scene[:, 2] + yaw]))
            state[:2] = turn @ state_of(scene)[:2]
            yield state

    for yaw in (0.2, -0.4, 2.0):
        turn = np.array([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]])
        policy.reset(seed=0)
        here = np.array([policy.act(state) for state in states(np.eye(2), 0.0)])
        candidates = np.random.default_rng(1).uniform(-0.02, 0.02, (20, 2)).astype(np.float32)
        if isinstance(policy, ImplicitPolicy):
            energies = policy.landscape(candidates)
        policy.reset(seed=0)
        there = np.array([policy.act(state) for state in states(turn, yaw)])
        if isinstance(policy, ImplicitPolicy):
            assert np.allclose(policy.landscape(candidates @ turn.T), energies, atol=1e-3)
        elif method == "mse":
            assert np.allclose(there, here @ turn.T, atol=1e-4)


def test_the_energy_of_displacements_is_that_of_the_likeliest_views() -> None:
    policy = build("ibc", displacements())
    assert isinstance(policy, ImplicitPolicy)
    assert isinstance(policy.energy, ViewEnergy)
    assert policy.proposal is not None
    state = torch.as_tensor(displacements().observations["state"][:5])[:, None]
    with torch.no_grad():
        code, _ = policy._encode({"state": state}, None)
        whole = policy.proposal(code)
        narrow, mixture = likeliest_views(code, whole)
        actions = 2 * torch.rand(5, 7, 2, generator=torch.Generator().manual_seed(0)) - 1
        found = policy.energy(narrow, actions)
        # By hand: view for view, over all of them, then the LIKELY most likely of each row.
        encoder = policy.encoder
        assert isinstance(encoder, ViewEncoder)
        weights = whole.log_weights.unflatten(1, (12, -1)).logsumexp(-1)
        for row in range(5):
            best = weights[row].argsort(descending=True)[:LIKELY]
            total = torch.zeros(7)
            for view in best:
                local = encoder.reader.local(encoder.raw(actions[row]), code[row, view, -4:])
                z = (local - encoder.mean) / encoder.std
                e = policy.energy._network(z, policy.energy.code_projection(code[row, view, :-4]))
                total += (weights[row, view] - weights[row, best].logsumexp(0) - e).exp()
            assert torch.allclose(found[row], -total.log(), atol=1e-4)
        # The narrowed mixture is the whole one, given that the action is meant for those views.
        assert torch.allclose(mixture.log_weights.exp().sum(-1), torch.ones(5), atol=1e-5)
        assert mixture.means.shape == (5, LIKELY * 2, 2)


def test_views_of_displacements_need_a_proposal() -> None:
    with pytest.raises(ValueError, match=r"from a proposal.*uniform"):
        build("ibc", displacements(), negatives=(("uniform", 1.0),))


def test_relations_append_differences_coarse_and_fine() -> None:
    fields = [FieldSpec.parse(field) for field in FIELDS[:3]]
    relations = Relations(fields)
    state = torch.tensor([[0.25, 0.0, 0.30, 0.01, 1.0, 0.0]])
    out = relations(state)[0]
    assert out.shape == (relations.n_features,) == (10,)
    assert torch.allclose(out[6:8], torch.tensor([0.05, 0.01]))
    assert torch.allclose(out[8:], torch.asinh(torch.tensor([0.05, 0.01]) / FINE))
    with pytest.raises(ValueError, match="two point fields"):
        Relations(fields[1:])


def test_relations_of_positions_in_many_dimensions_come_with_distances() -> None:
    fields = [FieldSpec(name, 3, "position") for name in ("here", "goal")]
    relations = Relations([*fields, FieldSpec("speed", 1, "scalar")])
    state = torch.tensor([[0.0, 0.0, 0.0, 0.02, 0.03, 0.06, 9.0]])
    out = relations(state)[0]
    assert out.shape == (relations.n_features,) == (7 + 3 + 2,)
    torch.testing.assert_close(out[7:10], torch.tensor([0.02, 0.03, 0.06]))
    torch.testing.assert_close(out[10], torch.tensor(0.07))
    torch.testing.assert_close(out[11], torch.asinh(torch.tensor(0.07 / FINE)))


def test_positions_of_another_size_make_no_pair() -> None:
    with pytest.raises(ValueError, match="two positions of one size"):
        Relations([FieldSpec("here", 3, "position"), FieldSpec("goal", 4, "position")])


def test_relations_sharpen_every_policys_input() -> None:
    torch.manual_seed(0)
    policy = make_policy("mse", demonstrations(), small_config("mse", relations=True))
    action = policy.act(demonstrations().observations["state"][0])
    assert action.shape == (4,)
    assert np.isfinite(action).all()
