"""`decisive triage`: scores in order, a page that a browser shows, hostile files, refusals."""

import csv
import io
import json
import os
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from triage_cases import photo, save_untrained, untrained

from decisive import cli
from decisive.cli import Verb
from decisive.page import printable
from decisive.triage_page import LOWERS, NOTICE, RAISES, heat_overlay
from perception.abnormality import TASK, read
from perception.checkpoint import save_classifier

HOSTILE = "<script>document.title='owned'<!--\"' &amp;.png"
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)


@pytest.fixture(autouse=True)
def _verb(monkeypatch) -> None:
    monkeypatch.setitem(cli.VERBS, "triage", Verb("decisive.triage", "most abnormal first"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("triage") / "tiny"
    save_untrained(folder)
    return folder


@pytest.fixture
def frames(tmp_path) -> Path:
    """A folder with all that can be in one."""
    root = tmp_path / "frames"
    (root / "deep" / "er").mkdir(parents=True)
    for seed, name in enumerate(
        ("a.png", "b.jpg", HOSTILE, "=1+1.png", "line\nbreak.png", "\u202egnp.png", "deep/er/c.png")
    ):
        photo(root / name, seed)
    photo(Path(os.fsdecode(os.fsencode(root) + b"/\xff.png")), 9)
    Image.fromarray(np.random.default_rng(1).integers(0, 65536, (70, 70), np.uint16)).save(
        root / "sixteen.png"
    )
    (root / "notes.txt").write_text("not an image")
    (root / "empty.png").write_bytes(b"")
    (root / "cut.png").write_bytes((root / "a.png").read_bytes()[:400])
    os.mkfifo(root / "pipe")
    (root / "circle").symlink_to(root)
    return root


def triage(frames: Path | str, *words: str) -> int:
    return cli.main(["triage", str(frames), *words])


def test_scores_are_those_of_the_classifier_most_abnormal_first(frames, checkpoint, capsys) -> None:
    assert triage(frames, "--checkpoint", str(checkpoint), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["n"] == len(told["scores"]) == 9
    values = list(told["scores"].values())
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 9
    assert list(told["ranks"].values()) == list(range(1, 10))
    assert set(told["skipped"]) == {"notes.txt", "empty.png", "cut.png", "pipe", "circle"}
    assert told["skipped"]["pipe"].startswith("not a file")
    assert told["skipped"]["circle"] == "link to a folder, not followed"
    assert told["points"] == {"high sensitivity": 0.25}
    assert told["notice"] == NOTICE
    saved = untrained()
    with Image.open(frames / "a.png") as image:
        square = np.asarray(image.convert("RGB"))[:, 10:70]  # 80 x 60, cut to 60 x 60
    logits = read(saved, saved.tensor(square[None])).logits
    assert told["scores"]["a.png"] == pytest.approx(float(logits[TASK].sigmoid()), rel=1e-4)
    expected = float(logits["scratch"].sigmoid())
    assert told["findings"]["a.png"] == pytest.approx({"scratch": expected}, rel=1e-4)


def test_without_a_classifier_the_shipped_one_scores_and_is_named(tmp_path, capsys) -> None:
    words = ("--split", "test", "--seed", "5", "--frames", "40", "--png")
    assert cli.main(["data", "render-inspection", "--out", str(tmp_path / "set"), *words]) == 0
    capsys.readouterr()
    frames = tmp_path / "set" / "frames"
    assert triage(frames) == 0
    assert capsys.readouterr().out.startswith("triage-inspection scores, the shipped classifier;")
    assert triage(frames, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["checkpoint"], told["shipped"], told["n"]) == ("triage-inspection", True, 40)
    assert set(told["points"]) == {"high sensitivity", "high specificity"}
    assert set(next(iter(told["findings"].values()))) == {"chip", "missing", "stain", "foreign"}
    # Missing holes and pins are what it knows best: their held-out area is 1.00.
    sound = [score for name, score in told["scores"].items() if name.startswith("sound/")]
    missing = [score for name, score in told["scores"].items() if name.startswith("missing/")]
    assert len(sound) > 10
    assert min(missing) > sorted(sound)[len(sound) * 3 // 4]


def test_lines_show_no_control_characters(frames, checkpoint, capsys) -> None:
    assert triage(frames, "--checkpoint", str(checkpoint)) == 0
    out = capsys.readouterr().out
    assert "line\\nbreak.png" in out
    assert "\\u202egnp.png" in out
    assert "\\udcff.png" in out
    assert f"9 scored, 5 skipped. {NOTICE}" in out


class Strict(HTMLParser):
    """Refuses what is not closed, or closed in another order; keeps text and attributes."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.text.append(data)

    def elements(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def page_of(folder: Path) -> Strict:
    parser = Strict()
    parser.feed((folder / "index.html").read_text(encoding="utf-8"))
    parser.close()
    assert not parser.open
    return parser


def test_the_page_is_whole_and_needs_nothing_else(frames, checkpoint, tmp_path, capsys) -> None:
    out = tmp_path / "review"
    words = ("--checkpoint", str(checkpoint), "--out", str(out))
    assert triage(frames, *words) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out / "index.html")
    assert sorted(path.name for path in out.iterdir()) == ["index.html", "triage.csv"]
    page = page_of(out)
    images = page.elements("img")
    assert len(images) == 18  # a picture and a heat map each
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in images)
    assert not page.elements("script")
    assert not page.elements("link")
    assert not page.elements("a")
    assert all(set(attributes) <= {"src", "alt"} for attributes in images)
    assert "default-src 'none'" in page.elements("meta")[1]["content"]
    text = "".join(page.text)
    assert text.count(NOTICE) == 2
    assert printable(HOSTILE) in text
    assert "2 x 2 cells" in text
    for reason in ("empty file", "no image of a known format", "not a file"):
        assert reason in text
    # Again, over what is there.
    assert triage(frames, *words, "--top", "2") == 0
    page = page_of(out)
    assert len(page.elements("img")) == 4
    assert "The rest" in "".join(page.text)


def test_the_table_holds_every_file_and_no_formula(frames, checkpoint, tmp_path) -> None:
    out = tmp_path / "review"
    assert triage(frames, "--checkpoint", str(checkpoint), "--out", str(out)) == 0
    text = (out / "triage.csv").read_bytes().decode("utf-8")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len(rows) == 14
    assert [row["rank"] for row in rows[:9]] == [str(rank) for rank in range(1, 10)]
    files = {row["file"]: row for row in rows}
    assert (files["a.png"]["width"], files["a.png"]["height"]) == ("80", "60")
    assert float(files["a.png"]["scratch"]) > 0
    assert files["a.png"]["reaches high sensitivity"] in ("0", "1")
    assert "./=1+1.png" in files
    assert "line\nbreak.png" in files
    assert files["empty.png"]["skipped"] == "empty file"
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values())


@pytest.mark.skipif(not BROWSER, reason="no Chromium (apt-get install chromium)")
def test_a_browser_shows_the_page(frames, checkpoint, tmp_path) -> None:
    out, picture = tmp_path / "review", tmp_path / "page.png"
    assert triage(frames, "--checkpoint", str(checkpoint), "--out", str(out)) == 0
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,1600", "--dump-dom",
        f"--screenshot={picture}", (out / "index.html").as_uri(),
    ]  # fmt: skip
    # Either one of the two is done in a call.
    subprocess.run(
        [word for word in command if word != "--dump-dom"],
        check=True, capture_output=True, timeout=200,
    )  # fmt: skip
    done = subprocess.run(
        [word for word in command if not word.startswith("--screenshot")],
        check=True, capture_output=True, timeout=200, text=True,
    )  # fmt: skip
    assert "<title>Triage: most abnormal first</title>" in done.stdout
    assert done.stdout.count("<li>") == 9
    assert "&lt;script&gt;" in done.stdout
    assert "<script" not in done.stdout
    with Image.open(picture) as image:
        seen = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
    tinted = np.abs(seen[:, 0] - seen[:, 2]) > 60
    assert tinted.mean() > 0.01  # pictures and heat maps are there, not only text


def test_heat_is_where_the_map_says_on_one_scale() -> None:
    picture = np.full((40, 80, 3), 100, np.uint8)
    found = heat_overlay(picture, np.array([[4.0, -4.0]]), 2.0)
    for place, color in ((0, RAISES), (79, LOWERS)):
        expected = np.rint(0.35 * 100 + 0.65 * np.array(color))
        np.testing.assert_array_equal(found[20, place], expected)
    np.testing.assert_array_equal(heat_overlay(picture, np.zeros((2, 2)), 2.0), picture)
    weak = heat_overlay(picture, np.array([[0.2]]), 2.0).astype(int)
    assert 0 < np.abs(weak - 100).max() < 10


def test_an_empty_folder_has_an_empty_page(tmp_path, checkpoint, capsys) -> None:
    (tmp_path / "none").mkdir()
    out = tmp_path / "review"
    words = ("--checkpoint", str(checkpoint), "--out", str(out), "--json")
    assert triage(tmp_path / "none", *words) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["n"], told["scores"], told["skipped"]) == (0, {}, {})
    assert "No picture to show." in "".join(page_of(out).text)
    assert triage(tmp_path / "none", "--checkpoint", str(checkpoint)) == 0
    assert capsys.readouterr().out.startswith("0 scored, 0 skipped.")


def test_pictures_of_one_kind_are_ranked_by_name(tmp_path, checkpoint, capsys) -> None:
    root = tmp_path / "same"
    root.mkdir()
    for name in ("b.png", "a.png", "c.png"):
        photo(root / name, 1)
    assert triage(root, "--checkpoint", str(checkpoint), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ranks"] == {"a.png": 1, "b.png": 2, "c.png": 3}
    assert len(set(told["scores"].values())) == 1


def test_grey_classifiers_and_those_without_maps_are_served(tmp_path, capsys) -> None:
    root = tmp_path / "frames"
    root.mkdir()
    photo(root / "a.png", 1)
    photo(root / "b.png", 2)
    save_untrained(tmp_path / "grey", channels=1, scores={"accuracy": 0.5})
    out = tmp_path / "review"
    words = ("--checkpoint", str(tmp_path / "grey"), "--out", str(out), "--json")
    assert triage(root, *words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["points"] == {}
    stretched = told["scores"]["a.png"]
    assert triage(root, *words, "--fit", "pad") == 0
    assert json.loads(capsys.readouterr().out)["scores"]["a.png"] != stretched
    from classifier_cases import save_small

    save_small(tmp_path / "vit", tasks={TASK: ("normal", "abnormal")})
    assert triage(root, "--checkpoint", str(tmp_path / "vit"), "--out", str(out)) == 0
    page = page_of(out)
    assert len(page.elements("img")) == 2
    assert "no exact heat maps" in "".join(page.text)


def test_a_page_inside_the_folder_is_not_looked_through(frames, checkpoint, capsys) -> None:
    out = frames / "review"
    words = ("--checkpoint", str(checkpoint), "--out", str(out), "--json")
    for _ in range(2):
        assert triage(frames, *words) == 0
        assert json.loads(capsys.readouterr().out)["n"] == 9


def test_what_cannot_be_is_refused_in_one_line(frames, checkpoint, tmp_path, capsys) -> None:
    save_untrained(tmp_path / "cats", tasks={"animal": ("cat", "dog")})
    save_untrained(tmp_path / "odd", scores={"triage": {"points": {"x": 7}}})
    save_untrained(tmp_path / "bent", scores={"triage": {"fit": "bend"}})
    save_untrained(tmp_path / "five", channels=5)
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    own = ("--checkpoint", str(checkpoint))
    for folder, words, said in (
        (tmp_path / "none", own, "no such folder"),
        (tmp_path / "file", own, "no such folder"),
        (frames, ("--checkpoint", str(tmp_path / "cats")), "triage needs a classifier with"),
        (frames, ("--checkpoint", str(tmp_path / "nothing")), "neither a folder nor"),
        (frames, ("--checkpoint", str(tmp_path / "odd")), "threshold 'x' must be in 0..1"),
        (frames, ("--checkpoint", str(tmp_path / "bent")), "fit must be one of"),
        (frames, ("--checkpoint", str(tmp_path / "five")), "reads grey or RGB images"),
        (frames, (*own, "--out", str(tmp_path / "file")), "is a file; name a folder"),
        (frames, (*own, "--out", str(tmp_path / "full")), "holds other files (mine.txt)"),
        (frames, (*own, "--out", str(frames)), "holds other files"),
        (frames, (*own, "--top", "-1"), "--top must be 0 or more"),
    ):
        assert triage(folder, *words) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert (tmp_path / "full" / "mine.txt").read_text() == "x"


def test_weights_that_give_no_number_are_told(frames, tmp_path, capsys) -> None:
    saved = untrained()
    with torch.no_grad():
        saved.model.classifier.bias[:2] = torch.tensor([-3e38, 3e38])
    save_classifier(tmp_path / "huge", saved, "of a test")
    assert triage(frames, "--checkpoint", str(tmp_path / "huge")) == 2
    assert "gives no number for" in capsys.readouterr().err
