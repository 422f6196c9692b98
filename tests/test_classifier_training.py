"""Training of classifiers: losses by hand, resuming bit by bit, growing images, missing labels."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from decisive import cli
from learning.image_set import ImageSet, write_image_set
from learning.progressive import ProgressiveConfig
from perception.catalogue import create
from perception.checkpoint import load_classifier
from perception.evaluation import evaluate_classifier
from perception.train_batches import Batches, channel_statistics, task_losses
from perception.train_config import ClassifierTrainConfig
from perception.training import train_classifier

TASKS = {"colour": ("red", "green", "blue"), "side": ("left", "right")}


def colours(n: int = 48, size: int = 16, seed: int = 0) -> ImageSet:
    """Dark noise with one bright channel, brighter on one side."""
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.integers(0, 3, n), rng.integers(0, 2, n)], 1)
    images = rng.integers(0, 60, (n, size, size, 3), dtype=np.uint8)
    half = size // 2
    for image, (colour, side) in zip(images, labels, strict=True):
        image[:, side * half : (side + 1) * half, colour] += 150
    return ImageSet(images, labels, TASKS, "synthetic: colours", {"seed": seed, "synthetic": True})


class Tiny(nn.Module):
    """Batch normalisation, dropout and a classifier; small enough to be trained in a test."""

    def __init__(self, n_classes: int = 5) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 4, 4)
        self.norm = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Linear(32, n_classes)
        self.sizes: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.sizes.append(images.shape[-1])
        x = self.norm(self.conv(images)).relu()
        return self.classifier(self.dropout(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)))


def tiny(seed: int = 0) -> Tiny:
    torch.manual_seed(seed)
    return Tiny()


def config(**changes) -> ClassifierTrainConfig:
    settings = {
        "steps": 12,
        "batch_size": 16,
        "lr": 0.02,
        "warmup_steps": 2,
        "flip": False,
        "device": "cpu",
        "tensorboard": False,
        "norm_batches": 2,
        "ema_decay": 0.9,
    }
    return ClassifierTrainConfig(**{**settings, **changes})


def test_losses_are_those_worked_by_hand_and_missing_labels_count_nothing() -> None:
    logits = torch.tensor([[math.log(2), 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 9.0, 9.0]])
    targets = torch.tensor([[1.0, 0, 0, 0, 0], [0, 0, 0, 1, 0]])
    found = task_losses(logits, targets, TASKS)
    # Of colour only the first image has a label, with probability 2 / 4; of side the second.
    assert float(found["colour"]) == pytest.approx(math.log(2))
    assert float(found["side"]) == pytest.approx(math.log(2))
    smoothed = task_losses(logits, targets, TASKS, 0.3)["colour"]
    assert float(smoothed) == pytest.approx(0.8 * math.log(2) + 0.2 * math.log(4))
    assert task_losses(logits[:1], targets[:1], TASKS)["side"] == 0


def test_losses_agree_with_torch_on_full_labels() -> None:
    logits, labels = torch.randn(7, 5), torch.arange(7) % 3
    targets = nn.functional.one_hot(labels, 5).float()
    expected = nn.functional.cross_entropy(logits[:, :3], labels, label_smoothing=0.1)
    assert task_losses(logits, targets, TASKS, 0.1)["colour"] == pytest.approx(float(expected))


def test_every_image_is_seen_once_an_epoch_in_another_order() -> None:
    data = colours(20)
    batches = Batches(data, config(batch_size=8), channel_statistics(data), torch.device("cpu"))
    seen = np.concatenate([batches.rows(step) for step in range(5)])
    assert sorted(seen[:20]) == sorted(seen[20:]) == list(range(20))
    assert seen[:20].tolist() != seen[20:].tolist()
    # Asked for out of order, a step is the same: a resumed run needs it.
    assert batches.rows(1).tolist() == seen[8:16].tolist()


def test_inputs_have_mean_zero_and_spread_one_and_frames_of_a_clip_change_alike() -> None:
    images = np.repeat(colours(30).images[:, None], 3, axis=1)
    clips = ImageSet(images, colours(30).labels, TASKS, "synthetic", {})
    settings = config(batch_size=30, flip=True)
    batches = Batches(clips, settings, channel_statistics(clips), torch.device("cpu"))
    plain = batches.plain(np.arange(30))
    assert plain.shape == (30, 3, 3, 16, 16)
    assert plain.mean((0, 1, 3, 4)).tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert plain.std((0, 1, 3, 4)).tolist() == pytest.approx([1, 1, 1], abs=1e-3)
    changed, _ = batches.train(0, None)
    assert torch.equal(changed[:, 0], changed[:, 2])
    assert not torch.equal(changed, batches.plain(batches.rows(0)))


def test_both_tasks_are_learned_and_scored_with_their_numbers(tmp_path: Path) -> None:
    train, held_out = colours(192), colours(40, seed=1)
    labels = held_out.labels.copy()
    labels[:10, 1] = -1
    held_out = replace(held_out, labels=labels)
    result = train_classifier(tiny(), train, held_out, config(steps=80, crop=0.0), tmp_path)
    scores = result.scores.tasks
    assert (scores["colour"].n, scores["side"].n) == (40, 30)
    assert scores["colour"].accuracy > 0.9
    assert scores["side"].accuracy > 0.9
    assert result.history[-1]["validation/colour"] == scores["colour"].accuracy
    assert result.scores.loss < result.history[0]["loss"]
    assert result.cpu_seconds > 0


def test_training_without_labels_of_a_task_leaves_its_outputs_alone(tmp_path: Path) -> None:
    labels = colours().labels.copy()
    labels[:, 1] = -1
    model, data = tiny(), replace(colours(), labels=labels)
    before = model.classifier.bias[3:].clone()
    plain = config(ema_decay=None, weight_decay=0.0)
    result = train_classifier(model, data, data, plain, tmp_path)
    assert torch.equal(model.classifier.bias[3:], before)
    assert math.isnan(result.scores.tasks["side"].accuracy)


SCHEDULE = ProgressiveConfig((8, 16), (1.0, 5.0), (0.0, 0.2), (0.0, 0.2), (0.1, 0.3), n_stages=3)


class KilledError(Exception):
    pass


@pytest.mark.parametrize("schedule", [None, SCHEDULE])
@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_a_killed_run_ends_bit_by_bit_the_same(
    tmp_path: Path, schedule: ProgressiveConfig | None, ema_decay: float | None
) -> None:
    data = colours()
    settings = config(
        schedule=schedule, ema_decay=ema_decay, save_every=5, log_every=5, validate_every=3
    )
    whole, killed = tiny(), tiny()
    expected = train_classifier(whole, data, data, settings, tmp_path / "whole")
    calls: list[int] = []

    def killing(model: nn.Module, folder: Path, training: dict) -> None:
        calls.append(training["step"])
        if training["step"] == 10:
            raise KilledError

    with pytest.raises(KilledError):
        train_classifier(killed, data, data, settings, tmp_path / "killed", save=killing)
    again = tiny(seed=5)
    found = train_classifier(again, data, data, settings, tmp_path / "killed")
    assert calls == [5, 10]
    assert found.step == expected.step == 12
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    strip = [{k: v for k, v in row.items() if k != "cpu_seconds"} for row in found.history]
    assert strip == [
        {k: v for k, v in row.items() if k != "cpu_seconds"} for row in expected.history
    ]


def test_the_schedule_grows_images_and_dropout(tmp_path: Path) -> None:
    model, data = tiny(), colours()
    settings = config(schedule=SCHEDULE, ema_decay=None, norm_batches=0)
    result = train_classifier(model, data, data, settings, tmp_path)
    assert model.sizes == [8] * 4 + [12] * 4 + [16] * 4
    assert model.dropout.p == 0.3
    assert result.size == (16, 16)


def test_averaged_weights_are_scored_with_statistics_of_their_own(tmp_path: Path) -> None:
    model, data = tiny(), colours()
    settings = config(ema_decay=0.5, norm_batches=3)
    train_classifier(model, data, data, settings, tmp_path)
    batches = Batches(data, settings, channel_statistics(data), torch.device("cpu"))
    with torch.no_grad():
        maps = [model.conv(batches.plain(batches.rows(12 + k))) for k in range(3)]
    mean = torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0)
    torch.testing.assert_close(model.norm.running_mean, mean)


def test_evaluation_does_not_depend_on_the_batch_size_nor_change_the_mode() -> None:
    data, model = colours(), tiny().train()
    batches = Batches(data, config(), channel_statistics(data), torch.device("cpu"))
    whole, parts = (evaluate_classifier(model, batches, size) for size in (48, 7))
    assert whole.tasks == parts.tasks
    assert whole.loss == pytest.approx(parts.loss, rel=1e-5)
    assert model.training


def test_a_broken_loss_stops_the_run(tmp_path: Path) -> None:
    model = tiny()
    with torch.no_grad():
        model.classifier.bias[0] = math.nan
    with pytest.raises(ValueError, match="the loss became nan by step 12; lower lr"):
        train_classifier(model, colours(), colours(), config(), tmp_path)
    assert not (tmp_path / "train_state.safetensors").exists()


def test_another_run_in_the_folder_is_refused(tmp_path: Path) -> None:
    data = colours()
    train_classifier(tiny(), data, data, config(), tmp_path)
    with pytest.raises(ValueError, match="other config"):
        train_classifier(tiny(), data, data, config(lr=0.01), tmp_path)
    with pytest.raises(ValueError, match="other data"):
        train_classifier(tiny(), colours(seed=3), data, config(), tmp_path)
    train_classifier(tiny(), data, data, config(lr=0.01), tmp_path, resume=False)


def test_sets_of_other_tasks_and_bad_settings_are_refused(tmp_path: Path) -> None:
    data = colours()
    other = replace(data, tasks=dict(reversed(TASKS.items())), labels=data.labels[:, ::-1].copy())
    with pytest.raises(ValueError, match="must have the tasks"):
        train_classifier(tiny(), data, other, config(), tmp_path)
    for changes, message in (
        ({"label_smoothing": 1.0}, "label_smoothing must be in"),
        ({"magnitude": 31.0}, "magnitude must be 0 to 30"),
        ({"schedule": SCHEDULE, "size": 16}, "leave size None"),
        ({"precision": "half"}, "precision must be"),
    ):
        with pytest.raises(ValueError, match=message):
            config(**changes)


def test_epochs_are_rounded_up_to_steps() -> None:
    assert ClassifierTrainConfig.for_epochs(2, 100, 64).steps == 4
    with pytest.raises(ValueError, match="epochs"):
        ClassifierTrainConfig.for_epochs(0, 100)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("vit_micro_tokenlearner", {"patch": 4, "image": 16, "depth": 2, "width": 32, "heads": 2}),
        ("efficientnetv2_b0_quarter", {}),
    ],
)
def test_every_parameter_of_a_backbone_learns(tmp_path: Path, name: str, overrides: dict) -> None:
    torch.manual_seed(0)
    model = create(name, n_classes=5, **overrides)
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    settings = config(steps=2, ema_decay=None, weight_decay=0.0, warmup_steps=0, norm_batches=1)
    data = colours(16)
    train_classifier(model, data, data, settings, tmp_path)
    still = [key for key, value in model.named_parameters() if torch.equal(value, before[key])]
    assert not still


def test_the_verb_writes_a_checkpoint_with_a_card(tmp_path: Path, capsys) -> None:
    for name, data in (("train", colours(32)), ("held", colours(20, seed=1))):
        write_image_set(
            tmp_path / name,
            [(data.images, data.labels)],
            len(data),
            data.images.shape[1:],
            data.tasks,
            data.source,
            data.facts,
        )
    words = ["--backbone", "vit_micro", "--data", str(tmp_path / "train")]
    words += ["--held-out", str(tmp_path / "held"), "--out", str(tmp_path / "run")]
    words += ["--steps", "2", "--set-model", "patch=4", "--set-model", "image=16"]
    words += ["--set-model", "depth=2", "--set-train", "batch_size=8", "--set-train", "device=cpu"]
    words += ["--set-train", "tensorboard=false", "--json"]
    assert cli.main(["train", "classifier", *words]) == 0
    told = json.loads(capsys.readouterr().out)
    saved = load_classifier(tmp_path / "run")
    assert saved.tasks == TASKS
    assert (saved.backbone, saved.size) == ("vit_micro", (16, 16))
    assert saved.scores["tasks"]["colour"]["n"] == 20
    assert told["scores"] == saved.scores
    card = (tmp_path / "run" / "last" / "README.md").read_text()
    for words_of_card in ("synthetic", "decisive train classifier", "of 20", "95%", "Limits"):
        assert words_of_card in card
    answer = saved.read(saved.model(saved.tensor(colours(3).images)))
    assert set(answer[0]["side"]) == {"left", "right"}
