"""`decisive train segmenter`: the verb, its checkpoint and card, and what it refuses."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from segmenter_cases import CLASSES, Scenes, discs, saved, tiny

from decisive import cli
from decisive.train_segmenter import score_lines, take_weights
from learning.instance_set import write_instance_set
from perception.deep_mac.checkpoint import load_segmenter, save_segmenter

pytestmark = pytest.mark.learning

# As the network of the other tests: a step takes milliseconds.
SMALL = (
    *("--set-model", "backbone=vit_micro"),
    *("--set-model", "backbone_options.patch=4", "--set-model", "backbone_options.image=32"),
    *("--set-model", "backbone_options.depth=1", "--set-model", "backbone_options.width=16"),
    *("--set-model", "backbone_options.heads=2", "--set-model", "width=8"),
    *("--set-model", "mask_size=8", "--set-model", "head.width=2"),
)


def write(folder: Path, data: Scenes) -> None:
    def ids(masks: np.ndarray) -> np.ndarray:
        return (masks * np.arange(1, len(masks) + 1)[:, None, None]).sum(0).astype(np.uint8)

    images = np.stack([scene.image for scene in data.scenes])
    numbers = np.stack([ids(scene.masks) for scene in data.scenes])
    kinds = [scene.classes for scene in data.scenes]
    write_instance_set(
        folder,
        [(images, numbers, kinds)],
        len(data),
        images.shape[1:3],
        data.classes,
        data.source,
        data.facts,
    )


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> tuple[str, ...]:
    place = tmp_path_factory.mktemp("scenes")
    write(place / "train", discs(16))
    write(place / "held", discs(6, seed=1))
    return "--data", str(place / "train"), "--held-out", str(place / "held")


def train(sets: tuple[str, ...], out: Path, *words: str, model: tuple[str, ...] = SMALL) -> int:
    quick = ("--set-train", "device=cpu", "--set-train", "tensorboard=false")
    quick += ("--set-train", "batch_size=4")
    return cli.main(["train", "segmenter", *sets, "--out", str(out), *model, *quick, *words])


def test_the_verb_writes_a_checkpoint_with_a_card(sets, tmp_path: Path, capsys) -> None:
    words = ("--masked-classes", "red, blue", "--head", "resnet-4", "--crops", "both")
    words += ("--jitter", "0.1", "--steps", "3")
    assert train(sets, tmp_path, *words, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    one = load_segmenter(tmp_path)
    assert one.classes == CLASSES
    assert one.masked_classes == ("red", "blue")
    assert (one.architecture, one.size) == ("deep_mac", (32, 32))
    assert one.scores == told["scores"]
    assert one.scores["scenes"] == 6
    assert set(one.scores["given_boxes"]) == {"seen", "unseen"}
    assert (told["step"], told["folder"]) == (3, str(tmp_path / "last"))
    network: Any = one.model
    head = network.config.head
    assert (head.name, head.width, network.config.n_classes) == ("resnet-4", 2, 3)
    card = (tmp_path / "last" / "README.md").read_text()
    for said in ("masks of 2 classes: red, blue", "decisive train segmenter", "synthetic"):
        assert said in card
    for said in ("both boxes, sides moved by up to 0.1", "Limits", "mask head resnet-4 2 wide"):
        assert said in card
    assert all(line in card for line in score_lines(one.scores))
    assert one.segment(discs(1)[0].image, [[0, 0, 9, 9]]).masks.shape == (1, 32, 32)


def test_lines_tell_the_scores_and_a_second_call_goes_on(sets, tmp_path: Path, capsys) -> None:
    assert train(sets, tmp_path, "--steps", "2") == 0
    first = capsys.readouterr().out
    assert "2 steps in" in first
    assert "mask IoU in true boxes, classes with masks in training:" in first
    assert "without masks" not in first
    assert train(sets, tmp_path, "--steps", "2") == 0
    assert capsys.readouterr().out == first
    assert train(sets, tmp_path, "--steps", "3") == 2
    assert "holds a run with other config" in capsys.readouterr().err
    assert train(sets, tmp_path, "--steps", "1", "--fresh") == 0


def test_two_stage_networks_are_trained_alike(sets, tmp_path: Path, capsys) -> None:
    model = ("--model", "deep_marc_small", "--set-model", "backbone=efficientnetv2_b0_quarter")
    model += ("--set-model", "width=8", "--set-model", "box_width=8", "--set-model", "head.width=1")
    model += ("--head", "conv-4", "--set-train", "norm_batches=1")
    assert train(sets, tmp_path, "--steps", "1", "--size", "64", model=model) == 0
    one = load_segmenter(tmp_path)
    assert (one.architecture, one.size) == ("deep_marc", (64, 64))
    network: Any = one.model
    assert network.config.head.width == 1


def test_sets_are_joined_at_a_size_that_is_no_square(sets, tmp_path: Path, capsys) -> None:
    data = discs(8, seed=2)
    data.classes = ("blue", "yellow", "red")
    write(tmp_path / "more", data)
    words = ("--data", str(tmp_path / "more"), "--size", "40x32", "--steps", "1")
    assert train(sets, tmp_path / "run", *words) == 0
    one = load_segmenter(tmp_path / "run")
    assert one.size == (32, 40)
    assert one.classes == (*CLASSES, "yellow")
    assert "24 synthetic scenes" in (tmp_path / "run" / "last" / "README.md").read_text()


def labelled(folder: Path, data: Scenes, boxes_alone: bool = False) -> str:
    """Scenes as a tool for labelling exports them: one JSON file, and pictures in `images`."""
    coco = pytest.importorskip("pycocotools.mask")
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for k, scene in enumerate(data.scenes):
        Image.fromarray(scene.image).save(folder / "images" / f"{k}.png")
        height, width = scene.image.shape[:2]
        images.append({"id": k, "file_name": f"{k}.png", "height": height, "width": width})
        for box, kind, mask in zip(scene.boxes.tolist(), scene.classes, scene.masks, strict=True):
            code = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
            runs = {"size": [height, width], "counts": code["counts"].decode()}
            x1, y1, x2, y2 = box
            told = {"segmentation": [] if boxes_alone and int(kind) else runs}
            told |= {"image_id": k, "category_id": int(kind), "bbox": [x1, y1, x2 - x1, y2 - y1]}
            annotations.append(told)
    categories = [{"id": k, "name": name} for k, name in enumerate(data.classes)]
    file = folder / "labels.json"
    told = {"images": images, "categories": categories, "annotations": annotations}
    file.write_text(json.dumps(told))
    return str(file)


def test_pictures_that_people_labelled_are_learned_from(sets, tmp_path: Path, capsys) -> None:
    drawn = labelled(tmp_path / "train", discs(16))
    held = labelled(tmp_path / "held", discs(6, seed=1))
    words = ("--steps", "2", "--size", "32", "--json")
    assert train(sets, tmp_path / "rendered", *words) == 0
    rendered = json.loads(capsys.readouterr().out)
    assert train(("--data", drawn, "--held-out", held), tmp_path / "run", *words) == 0
    told = json.loads(capsys.readouterr().out)
    # The same pictures and masks in another form: the same training, to the last bit.
    assert told["scores"] == rendered["scores"]
    assert told["history"][-1]["loss"] == rendered["history"][-1]["loss"]

    boxed = labelled(tmp_path / "boxed", discs(16), boxes_alone=True)
    assert train(("--data", boxed, "--held-out", held), tmp_path / "few", *words) == 0
    assert "instances with a box and no mask" in (tmp_path / "few/last/README.md").read_text()
    assert train(("--data", drawn, "--held-out", boxed), tmp_path / "no", *words) == 2
    error = capsys.readouterr().err
    assert "has a box and no mask, which cannot be scored" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "no").exists()


def test_weights_are_taken_over_where_they_fit(sets, tmp_path: Path, capsys) -> None:
    one, other = tiny(seed=1), tiny(seed=2, n_classes=5)
    anew = take_weights(other, one)
    assert anew == ["branches.heat.2.weight", "branches.heat.2.bias"]
    for name, value in one.state_dict().items():
        assert torch.equal(other.state_dict()[name], value) == (name not in anew)
    with pytest.raises(ValueError, match="no weights of --start-from fit"):
        take_weights(torch.nn.Linear(2, 2), one)

    save_segmenter(tmp_path / "start", saved(one), "")
    words = ("--start-from", str(tmp_path / "start"), "--steps", "1", "--set-train", "lr=1e-9")
    pieces = ("--set-model", "head.kind=conv", "--set-model", "head.depth=2")
    pieces += ("--set-model", "pixel_embedding=4", "--set-model", "instance_embedding=4")
    assert train(sets, tmp_path / "run", *words, *pieces, "--set-model", "head.width=4") == 0
    n = len(one.state_dict())
    assert f"{n} of {n} tensors taken over from" in capsys.readouterr().out
    trained = load_segmenter(tmp_path / "run").model
    for name, value in one.named_parameters():
        torch.testing.assert_close(trained.get_parameter(name), value, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_is_refused_in_one_line(sets, tmp_path: Path, capsys) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(sets[1], broken)
    (broken / "set.json").write_text("{}")
    for words, said in (
        (("--model", "mask_rcnn"), "unknown network 'mask_rcnn'; known: deep_mac_mini"),
        (("--head", "hourglass-21"), "unknown mask head 'hourglass-21'; known: hourglass-10"),
        (("--masked-classes", "red,yellow"), "'yellow'; classes: red, green, blue"),
        (("--jitter", "0.5"), "jitter must be in [0, 0.5)"),
        (("--crops", "none"), "--crops"),
        (("--set-model", "widht=8"), "widht"),
        (("--set-model", "head.depth=9"), "depth"),
        (("--set-train", "zooom=1"), "unknown training setting: 'zooom', did you mean 'zoom'?"),
        (("--size", "30"), "multiples of 4"),
        (("--size", "32x"), "--size must be pixels such as 256, or 256x192, got '32x'"),
        (("--size", "0"), "--size must be pixels"),
        (("--start-from", str(tmp_path / "nothing")), "neither a folder nor a shipped segmenter"),
        (("--data", str(broken)), "not a set of instances"),
        (("--data", str(tmp_path / "nothing")), "no set of instances in this folder"),
        (("--data", str(tmp_path / "nothing.json")), "nothing.json: No such file"),
    ):
        assert train(sets, tmp_path / "run", "--steps", "1", *words) == 2, words
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert train(sets[:2], tmp_path / "run") == 2
    assert "--held-out FOLDER" in capsys.readouterr().err
    assert train(sets[2:], tmp_path / "run") == 2
    assert "--data FOLDER" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_help_teaches(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "segmenter", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for said in ("--masked-classes", "--crops", "--head", "--minutes", "coco128", "Examples:"):
        assert said in text
