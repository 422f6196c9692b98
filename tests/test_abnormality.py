"""A classifier as one for triage: its scores, exact maps, findings with missing labels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from perception import create
from perception.abnormality import (
    CLASSES,
    TASK,
    activation_maps,
    calibrate,
    check_triage,
    difference_logits,
    has_maps,
    read,
    score_tasks,
)
from perception.abnormality_scores import Calibration
from perception.checkpoint import SavedClassifier
from perception.train_batches import task_losses

TASKS = {"view": ("front", "side", "other"), TASK: CLASSES, "effusion": ("absent", "present")}


def network(name: str = "efficientnetv2_b0_quarter", tasks=TASKS, channels: int = 1):
    torch.manual_seed(0)
    n = sum(map(len, tasks.values()))
    model = create(name, n_classes=n, in_channels=channels).eval()
    with torch.no_grad():
        model.classifier.bias.normal_()
    return model


def saved(model, tasks=TASKS, channels: int = 1, side: int = 32) -> SavedClassifier:
    return SavedClassifier(
        model=model,
        backbone="efficientnetv2_b0_quarter",
        overrides={},
        tasks=tasks,
        size=(side, side),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
    )


@pytest.mark.parametrize(
    "name", ["efficientnet_b0", "efficientnetv2_b0_quarter", "efficientnetv2_b0_half"]
)
def test_the_mean_of_a_map_is_the_logit_without_its_bias(name) -> None:
    model = network(name)
    batch = torch.randn(2, 1, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = difference_logits(model(batch), TASKS)
    bias = model.classifier.bias
    for task, row in ((TASK, 3), ("effusion", 5)):
        maps = activation_maps(model, batch, TASKS, task)
        assert maps.shape == (2, 2, 3)
        assert maps.flatten(1).std(1).min() > 0
        expected = logits[task] - (bias[row + 1] - bias[row])
        torch.testing.assert_close(maps.mean((1, 2)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["efficientnet_b7", "efficientnetv2_m"])
def test_large_efficientnets_have_maps_too(name) -> None:
    with torch.device("meta"):
        model = create(name, n_classes=7, in_channels=1).eval()
        assert has_maps(model)
        assert activation_maps(model, torch.zeros(1, 1, 64, 64), TASKS, TASK).shape == (1, 2, 2)


def test_one_pass_gives_scores_maps_and_bias() -> None:
    model = network()
    batch = torch.randn(3, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    found = read(saved(model), batch)
    assert list(found.logits) == [TASK, "effusion"]
    assert found.maps is not None
    expected = found.logits[TASK]
    torch.testing.assert_close(found.maps.mean((1, 2)) + found.bias, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(expected, difference_logits(model(batch), TASKS)[TASK])


def test_a_score_is_what_the_classifier_says() -> None:
    one = saved(network())
    batch = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        answers = one.read(one.model(batch))
    found = read(one, batch).logits
    for task, present in ((TASK, "abnormal"), ("effusion", "present")):
        told = [answer[task][present] for answer in answers]
        np.testing.assert_allclose(found[task].sigmoid().numpy(), told, rtol=1e-5)


def test_other_networks_have_scores_but_no_maps() -> None:
    model = network("vit_micro")
    batch = torch.randn(2, 1, 32, 32)
    found = read(saved(model), batch)
    assert found.maps is None
    assert found.logits[TASK].shape == (2,)
    assert not has_maps(model)
    with pytest.raises(ValueError, match="maps are exact for EfficientNet"):
        activation_maps(model, batch, TASKS, TASK)
    with pytest.raises(ValueError, match=r"call model\.eval"):
        activation_maps(network().train(), batch, TASKS, TASK)


def test_a_task_of_two_classes_is_a_sigmoid_and_missing_labels_are_left_out() -> None:
    tasks = {TASK: CLASSES, "effusion": ("absent", "present")}
    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[1, -1], [0, 1], [1, 0], [-1, -1], [0, -1]])
    targets = torch.cat(
        [F.one_hot(c.clamp(min=0), 2) * (c >= 0)[:, None] for c in labels.T], 1
    ).double()
    losses = task_losses(logits, targets, tasks)
    z = torch.stack(list(difference_logits(logits, tasks).values()), 1)
    for column, task in enumerate(tasks):
        known = labels[:, column] >= 0
        expected = F.binary_cross_entropy_with_logits(
            z[known, column], labels[known, column].double()
        )
        torch.testing.assert_close(losses[task].double(), expected, rtol=1e-5, atol=1e-6)
    sum(losses.values()).backward()
    assert (logits.grad[3] == 0).all()
    assert (logits.grad[0, 2:] == 0).all()
    assert (logits.grad[0, :2] != 0).all()


def test_every_parameter_learns_from_the_abnormal_task() -> None:
    model = network("efficientnetv2_b0_quarter", {TASK: CLASSES}).train()
    batch = torch.randn(8, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    z = difference_logits(model(batch), {TASK: CLASSES})[TASK]
    F.binary_cross_entropy_with_logits(z, torch.tensor([0.0, 1.0] * 4)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_a_calibration_is_built_into_the_linear_layer() -> None:
    model = network()
    batch = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = difference_logits(model(batch), TASKS)
        others = model(batch)[:, :3]
        calibrate(model, TASKS, Calibration(0.5, -1.0))
        after = difference_logits(model(batch), TASKS)
        torch.testing.assert_close(after[TASK], 0.5 * before[TASK] - 1.0)
        torch.testing.assert_close(after["effusion"], before["effusion"])
        torch.testing.assert_close(model(batch)[:, :3], others)
        maps = activation_maps(model, batch, TASKS, TASK)
        bias = model.classifier.bias[4] - model.classifier.bias[3]
        torch.testing.assert_close(maps.mean((1, 2)) + bias, after[TASK], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="two classes"):
        calibrate(model, TASKS, Calibration(), "view")


def test_classifiers_of_something_else_are_refused() -> None:
    check_triage(saved(network()))
    assert score_tasks(TASKS) == (TASK, "effusion")
    for tasks in (
        {"object": ("cat", "dog")},
        {TASK: ("abnormal", "normal")},
        {TASK: ("normal", "abnormal", "odd")},
    ):
        with pytest.raises(ValueError, match="triage needs a classifier with a task 'abnormal'"):
            check_triage(replace(saved(network()), tasks=tasks))
    with pytest.raises(ValueError, match=r"logits must be \(B, 7\)"):
        difference_logits(torch.zeros(2, 6), TASKS)
    with pytest.raises(ValueError, match="no task is called 'fracture'"):
        activation_maps(network(), torch.zeros(1, 1, 32, 32), TASKS, "fracture")
