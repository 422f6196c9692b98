"""`decisive view --tokens`: maps of tokens over an image, and what is refused."""

import json
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from decisive import cli
from decisive.pictures import MARGIN
from decisive.token_pictures import PANEL, heat_map, spread, token_page
from decisive.video import VideoWriter
from decisive.view_tokens import look, read_image
from perception import create
from perception.checkpoint import SavedClassifier, load_classifier, save_classifier

TASKS = {"object": ("nothing", "duck", "mug"), "inserted": ("no", "yes")}
SMALL = {"width": 32, "depth": 2, "heads": 2, "image": 48}


def saved(backbone: str = "vit_micro_tokenlearner", **overrides) -> SavedClassifier:
    torch.manual_seed(0)
    changed = {**SMALL, **overrides}
    model = create(backbone, n_classes=5, **changed).eval()
    return SavedClassifier(model, backbone, changed, TASKS, (48, 48), (0.5,) * 3, (0.25,) * 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("classifier") / "tiny"
    save_classifier(place, saved(), "untrained, of a test")
    return place


@pytest.fixture
def photo(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "photo.png"
    Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(path)
    return path


def view(folder: Path | str, image: Path | str, *words: str) -> int:
    return cli.main(
        ["view", "--tokens", "--checkpoint", str(folder), "--image", str(image), *words]
    )


def test_one_page_and_the_answers(folder, photo, tmp_path, capsys) -> None:
    out = tmp_path / "tokens.png"
    assert view(folder, photo, "--out", str(out), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["answers"]) == set(TASKS)
    for task, classes in TASKS.items():
        assert tuple(told["answers"][task]) == classes
        assert sum(told["answers"][task].values()) == pytest.approx(1)
    assert len(told["looks_at"]) == 8
    assert all(1 / 36 - 1e-3 <= share <= 1 for share in told["looks_at"])
    with Image.open(out) as page:
        assert page.width > 5 * PANEL
        assert page.height > 2 * PANEL


def test_the_answers_are_those_of_the_network(folder, photo) -> None:
    loaded = load_classifier(folder)
    image = read_image(str(photo))
    _, told = look(loaded, image, "tiny")
    with torch.inference_mode():
        logits = loaded.model(loaded.tensor(image[None]))[0]
        maps = loaded.model.attention(loaded.tensor(image[None]))[0].numpy()
    expected = logits[:3].softmax(0).tolist()
    assert list(told["answers"]["object"].values()) == pytest.approx(expected, abs=1e-6)
    assert told["looks_at"] == pytest.approx([spread(m) for m in maps], abs=1e-4)


def test_photographs_are_seen_upright(tmp_path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (6, 9, 3), dtype=np.uint8)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
        with Image.open(tmp_path / "a.png") as file:
            expected = np.asarray(ImageOps.exif_transpose(file))
        np.testing.assert_array_equal(read_image(str(tmp_path / "a.png")), expected)
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=b"Exif\0\0II*\0damaged")
    np.testing.assert_array_equal(read_image(str(tmp_path / "a.png")), pixels)


def test_a_token_that_looks_at_one_patch_lights_that_patch() -> None:
    image = np.full((40, 60, 3), 100, np.uint8)
    weights = np.zeros((2, 3))
    weights[1, 2] = 0.2
    shown = heat_map(image, weights)
    # 0.45 of the grey and 0.55 of the ends of the ramp.
    np.testing.assert_array_equal(shown[25, 50], np.rint(45 + 0.55 * np.array([246, 215, 70])))
    np.testing.assert_array_equal(shown[5, 5], np.rint(45 + 0.55 * np.array([20, 11, 52])))
    lit = (shown == shown[25, 50]).all(-1)
    assert lit[20:, 40:].all()
    assert lit.sum() == 20 * 20


def test_a_map_may_have_any_scale_but_no_negative_weight() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    weights = np.arange(4.0).reshape(2, 2)
    np.testing.assert_array_equal(heat_map(image, weights), heat_map(image, 1000 * weights))
    assert heat_map(image, np.zeros((2, 2))).max() < 40
    with pytest.raises(ValueError, match="finite and not negative"):
        heat_map(image, -weights)


@pytest.mark.parametrize(
    ("weights", "share"),
    [([[1.0, 0.0], [0.0, 0.0]], 0.25), ([[3.0, 3.0], [0.0, 0.0]], 0.5), ([[2.0] * 2] * 2, 1.0)],
)
def test_spread_is_the_share_of_places(weights, share: float) -> None:
    assert spread(np.array(weights)) == pytest.approx(share)
    assert spread(np.zeros((2, 2))) == 1.0


def test_the_page_shows_the_image_and_a_panel_a_token() -> None:
    image = np.full((48, 48, 3), (10, 120, 240), np.uint8)
    page = token_page(image, np.ones((3, 2, 2)), {"object": {"duck": 0.9, "mug": 0.1}}, "title")
    top = MARGIN + 34
    assert (page[top : top + PANEL, MARGIN : MARGIN + PANEL] == (10, 120, 240)).all()
    left = MARGIN + PANEL + 24
    panels = [page[top : top + PANEL, left + i * (PANEL + 12) :][:, :PANEL] for i in range(3)]
    for panel in panels:
        assert (panel == panels[0][0, 0]).all()
        assert (panel[0, 0] != 255).all()


def test_a_film_gives_a_film(folder, tmp_path, capsys) -> None:
    film, out = tmp_path / "in.mp4", tmp_path / "out.mp4"
    with VideoWriter(film, fps=10) as writer:
        for level in (40, 120, 200):
            writer.add(np.full((64, 64, 3), level, np.uint8))
    assert view(folder, film, "--out", str(out), "--json") == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 3
    assert imageio_ffmpeg.count_frames_and_secs(str(out))[0] == 3


def test_a_token_fuser_has_a_map_in_every_later_block(photo, tmp_path, capsys) -> None:
    place = tmp_path / "fuser"
    save_classifier(place, saved("vit_micro_tokenfuser", depth=4), "untrained, of a test")
    out = ("--out", str(tmp_path / "x.png"))
    assert view(place, photo, *out, "--layer", "1") == 0
    assert view(place, photo, *out, "--layer", "2") == 2
    assert "--layer must be below 2" in capsys.readouterr().err


def test_a_network_without_a_token_learner_is_refused(photo, tmp_path, capsys) -> None:
    place = tmp_path / "plain"
    save_classifier(place, saved("vit_micro"), "untrained, of a test")
    assert view(place, photo, "--out", str(tmp_path / "x.png")) == 2
    error = capsys.readouterr().err
    assert "vit_micro has no TokenLearner" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "x.png").exists()


def test_files_that_cannot_be_are_refused(folder, photo, tmp_path, capsys) -> None:
    text = tmp_path / "text.png"
    text.write_text("no image")
    broken = tmp_path / "broken.mp4"
    broken.write_text("no film")
    out, film = str(tmp_path / "x.png"), str(tmp_path / "x.mp4")
    for image, words, said in (
        (tmp_path / "none.png", ("--out", out), "no such file"),
        (text, ("--out", out), "is no image that can be read"),
        (broken, ("--out", film), "is no film that can be read"),
        (photo, ("--out", film), "--out must end in .png"),
        (photo, ("--out", out, "--layer", "-1"), "--layer must be 0 or more"),
    ):
        assert view(folder, image, *words) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert not Path(out).exists()
    assert not Path(film).exists()


def test_an_unknown_checkpoint_is_refused(photo, tmp_path, capsys) -> None:
    assert view(tmp_path / "nothing", photo, "--out", str(tmp_path / "x.png")) == 2
    assert capsys.readouterr().err.count("\n") == 1
