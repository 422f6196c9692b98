"""`decisive retrieve --images`: arrays of many pictures beside image files."""

import json

import numpy as np
import pytest
from mural_cases import save_tiny, squares, tiny_saved
from PIL import Image

from decisive import cli
from decisive.retrieve_sources import Source, find_source, list_sources
from decisive.triage_images import NotReadable
from learning.caption_set import write_caption_set
from learning.image_set import write_image_set


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("mural") / "tiny"
    save_tiny(folder)
    return str(folder)


def captioned(folder) -> np.ndarray:
    data = squares(5)
    write_caption_set(folder, [(data.images, data.captions)], 5, (32, 32), ("en",), "Made up", {})
    return data.images


def test_pictures_of_a_caption_set_are_ranked_by_number(tmp_path, model, capsys) -> None:
    images = captioned(tmp_path / "set")
    words = ("a red chair", "--images", str(tmp_path), "--model", model, "--json")
    out = tmp_path.parent / f"{tmp_path.name}-page"
    assert cli.main(["retrieve", *words, "--out", str(out)]) == 0
    told = json.loads(capsys.readouterr().out)
    saved = tiny_saved()
    scores = (saved.embed_text(["a red chair"]) @ saved.embed_images(images).T)[0]
    order = scores.argsort(descending=True).tolist()
    assert [row["file"] for row in told["ranking"]] == [f"set/images.npy[{k}]" for k in order]
    assert [row["score"] for row in told["ranking"]] == pytest.approx(
        scores[order].tolist(), abs=1e-5
    )
    assert told["n"] == 5
    assert told["skipped"] == {
        "set/captions.json": "belongs to images.npy", "set/set.json": "belongs to images.npy"
    }  # fmt: skip
    page = (out / "index.html").read_text(encoding="utf-8")
    assert page.count('<img src="data:image/jpeg') == 5


def test_grey_image_sets_and_files_beside_them_are_looked_at(tmp_path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 16, 12, 1), np.uint8)
    chunks = [(pixels, np.zeros((3, 1), np.int64))]
    write_image_set(tmp_path / "a", chunks, 3, (16, 12, 1), {"x": ("y", "z")}, "Made up", {})
    Image.fromarray(pixels[0, :, :, 0]).save(tmp_path / "b.png")
    found, skipped = list_sources(tmp_path)
    assert list(found) == [f"a/images.npy[{k}]" for k in range(3)] + ["b.png"]
    assert set(skipped) == {"a/labels.npy", "a/set.json"}
    np.testing.assert_array_equal(found["a/images.npy[2]"].read(8), pixels[2].repeat(3, 2))
    assert found["b.png"].read(8).shape[2] == 3
    for name, source in found.items():
        assert find_source(tmp_path, name) == source
    # A file may really have such a name.
    (tmp_path / "images.npy[3]").write_bytes(b"")
    assert find_source(tmp_path, "images.npy[3]") == Source(tmp_path / "images.npy[3]")


def test_arrays_that_are_no_pictures_are_skipped_with_a_reason(tmp_path, model, capsys) -> None:
    arrays = {
        "clips": np.zeros((2, 3, 8, 8, 3), np.uint8),
        "floats": np.zeros((2, 8, 8, 3), np.float32),
        "none": np.zeros((0, 8, 8, 3), np.uint8),
        "objects": np.array([{"a": 1}], object),
    }
    for name, array in arrays.items():
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "images.npy", array, allow_pickle=True)
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "images.npy").write_bytes(b"\x93NUMPY\x01")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "images.npy").write_bytes(b"")
    found, skipped = list_sources(tmp_path)
    assert not found
    reasons = {name.split("/")[0]: reason for name, reason in skipped.items()}
    assert set(reasons) == {*arrays, "cut", "empty"}
    assert "must be uint8 (N, H, W, 1 or 3), is uint8 (2, 3, 8, 8, 3)" in reasons["clips"]
    assert "float32" in reasons["floats"]
    assert "holds no pictures" in reasons["none"]
    for name in ("objects", "cut", "empty"):
        assert reasons[name].startswith("no array that can be read")
    assert cli.main(["retrieve", "red", "--images", str(tmp_path), "--model", model]) == 2
    error = capsys.readouterr().err
    assert "none of 6 files" in error
    assert error.count("\n") == 1


def test_an_array_that_has_gone_is_no_picture(tmp_path) -> None:
    captioned(tmp_path / "set")
    source = list_sources(tmp_path)[0]["set/images.npy[4]"]
    assert source.read(8).shape == (32, 32, 3)
    np.save(tmp_path / "set" / "images.npy", np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(NotReadable, match="cannot be read any more"):
        source.read(8)
    (tmp_path / "set" / "images.npy").unlink()
    with pytest.raises(NotReadable, match="cannot be read any more"):
        source.read(8)
