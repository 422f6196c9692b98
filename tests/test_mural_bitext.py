"""Translation pairs: the real files, hand-made ones, damaged ones."""

import gzip
import json
from pathlib import Path

import pytest

from learning.bitext import Bitext, multi30k, multi30k_lines, xl_r2r, xl_r2r_paths
from learning.image_set import data_folder

REAL = pytest.mark.skipif(
    not (data_folder() / "multi30k").is_dir() or not (data_folder() / "xl_r2r").is_dir(),
    reason="no Multi30k and XL-R2R (set DECISIVE_DATA)",
)


def write_lines(path: Path, text: str | bytes) -> None:
    with gzip.open(path, "wb") as file:
        file.write(text.encode() if isinstance(text, str) else text)


@pytest.fixture
def flickr(tmp_path) -> Path:
    write_lines(tmp_path / "val.en.gz", "A dog.\n\nA red\u2028chair.\r\nLast")
    write_lines(tmp_path / "val.de.gz", b"Ein Hund.\nNichts.\nEin roter \xff Stuhl.\n--\n")
    return tmp_path


def test_lines_are_aligned_and_blank_ones_left_out_on_both_sides(flickr) -> None:
    pairs = multi30k("de", "validation", flickr)
    assert pairs.languages == ("en", "de")
    assert pairs.name == "en-de"
    # A separator of Unicode within a line ends none; what is no UTF-8 is replaced.
    assert pairs.first == ("A dog.", "A red\u2028chair.")
    assert pairs.second == ("Ein Hund.", "Ein roter \ufffd Stuhl.")


def test_files_of_different_lengths_are_refused(flickr) -> None:
    write_lines(flickr / "val.de.gz", "Ein Hund.\n")
    with pytest.raises(ValueError, match=r"as many lines each, got \{'en': 4, 'de': 1\}"):
        multi30k("de", "validation", flickr)


def test_what_is_not_there_or_damaged_is_said_in_one_line(flickr) -> None:
    with pytest.raises(ValueError, match=r"no data: .*val.fr.gz is not there"):
        multi30k("fr", "validation", flickr)
    whole = (flickr / "val.en.gz").read_bytes()
    for damaged in (b"not gzip", whole[:20], whole[:-6] + b"\x00" * 6):
        (flickr / "val.en.gz").write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged gzip") as caught:
            multi30k("de", "validation", flickr)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="language must be one of de, fr, cs"):
        multi30k("en")
    with pytest.raises(ValueError, match="split must be"):
        multi30k("de", "dev")


def write_paths(folder: Path, language: str, entries: object) -> None:
    write_lines(folder / f"R2R_train_{language}.json.gz", json.dumps(entries))


def entry(path_id: int, *texts: str) -> dict[str, object]:
    return {"path_id": path_id, "scan": "house", "instructions": list(texts)}


def test_instructions_of_one_path_are_pairs(tmp_path) -> None:
    write_paths(
        tmp_path, "en", [entry(1, "Go.", "Walk.", "Stop."), entry(2, "Left."), entry(3, "x")]
    )
    write_paths(tmp_path, "zh", [entry(2, "左转", "@@"), entry(1, "走", "停"), entry(3, " ")])
    pairs = xl_r2r("train", tmp_path)
    assert pairs.first == ("Go.", "Walk.", "Stop.", "Left.")
    assert pairs.second == ("走", "停", "走", "左转")
    paths = xl_r2r_paths("train", tmp_path)
    assert [path.path_id for path in paths] == ["1", "2"]
    assert xl_r2r(paths=paths[1:]).second == ("左转",)


@pytest.mark.parametrize(
    "content", ["[1]", "{}", '[{"path_id": 1}]', "nonsense", '[{"path_id":1,"scan":"a",'
                '"instructions":[3]}]', "[" * 5000]
)  # fmt: skip
def test_other_json_is_refused_in_one_line(tmp_path, content) -> None:
    write_lines(tmp_path / "R2R_train_en.json.gz", content)
    write_paths(tmp_path, "zh", [entry(1, "走")])
    with pytest.raises(ValueError, match=r"not a file of XL-R2R|no path of train") as caught:
        xl_r2r("train", tmp_path)
    assert "\n" not in str(caught.value)


def test_pairs_must_be_pairs() -> None:
    with pytest.raises(ValueError, match="as many texts"):
        Bitext(("en", "de"), ("a",), (), "")
    with pytest.raises(ValueError, match="one at least"):
        Bitext(("en", "de"), (), (), "")


@REAL
@pytest.mark.data
def test_the_published_splits_have_their_sizes() -> None:
    assert [len(multi30k_lines(("en", "cs"), s)[1]) for s in ("validation", "test")] == [1014, 1000]
    assert len(multi30k_lines(("de",), "train")[0]) == 29_000
    assert multi30k("fr", "test").second[0].startswith("Un homme avec un chapeau orange")
    paths = xl_r2r_paths("val_unseen")
    assert len(paths) == 783
    assert {len(path.texts["en"]) for path in paths} == {3}
    assert len(xl_r2r_paths("val_seen")) == 340


@REAL
@pytest.mark.data
def test_no_path_of_val_unseen_is_in_a_training_building() -> None:
    train = {path.scan for path in xl_r2r_paths("train")}
    assert not train & {path.scan for path in xl_r2r_paths("val_unseen")}
