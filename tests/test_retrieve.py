"""`decisive retrieve`: rankings in both directions, a page that a browser shows, bad input."""

import json
import os
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from mural_cases import save_tiny, tiny_saved
from PIL import Image

from decisive import cli
from decisive.page import printable
from decisive.retrieve import read_sentences

HOSTILE = "<script>document.title='owned'<!--\"' &amp;.png"
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("mural") / "tiny"
    save_tiny(folder)
    return str(folder)


def picture(path: Path, seed: int, size: tuple[int, int] = (32, 32)) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def frames(tmp_path) -> Path:
    """A folder with all that can be in one."""
    root = tmp_path / "frames"
    (root / "deep").mkdir(parents=True)
    for seed, name in enumerate(("a.png", "b.png", HOSTILE, "line\nbreak.png", "deep/c.png")):
        picture(root / name, seed)
    picture(Path(os.fsdecode(os.fsencode(root) + b"/\xff.png")), 9)
    (root / "notes.txt").write_text("not an image")
    (root / "empty.png").write_bytes(b"")
    (root / "cut.png").write_bytes((root / "a.png").read_bytes()[:400])
    os.mkfifo(root / "pipe")
    (root / "circle").symlink_to(root)
    return root


def retrieve(*words: str) -> int:
    return cli.main(["retrieve", *words])


def test_images_come_in_the_order_of_their_scores(frames, model, capsys) -> None:
    words = ("a red chair", "--images", str(frames), "--model", model, "--json")
    assert retrieve(*words) == 0
    told = json.loads(capsys.readouterr().out)
    ranking = told["ranking"]
    assert [row["rank"] for row in ranking] == list(range(1, 7))
    scores = [row["score"] for row in ranking]
    assert scores == sorted(scores, reverse=True)
    assert told["n"] == 6
    assert set(told["skipped"]) == {"notes.txt", "empty.png", "cut.png", "pipe", "circle"}
    assert told["skipped"]["pipe"].startswith("not a file")
    saved = tiny_saved()
    with Image.open(frames / "a.png") as image:
        own = saved.embed_images(np.asarray(image)[None])
    expected = float(saved.embed_text(["a red chair"]) @ own.T)
    found = next(row["score"] for row in ranking if row["file"] == "a.png")
    assert found == pytest.approx(expected, abs=1e-5)
    assert retrieve(*words, "--top", "2") == 0
    assert json.loads(capsys.readouterr().out)["ranking"] == ranking[:2]


@pytest.mark.parametrize(
    "text", ["红色的椅子", "כיסא אדום", "🪑 red стул", "é" * 50, "\u202ered", "a" * 5000]
)
def test_any_script_is_a_query(frames, model, text, capsys) -> None:
    assert retrieve(text, "--images", str(frames), "--model", model) == 0
    out = capsys.readouterr().out
    assert "6 looked at, 5 skipped" in out
    assert "line\\nbreak.png" in out


def test_ten_thousand_words_are_cut_with_a_note(frames, model, capsys) -> None:
    assert retrieve("word " * 10_000, "--images", str(frames), "--model", model) == 0
    assert "note: only the first 16 of 10,000 words are read" in capsys.readouterr().out


def test_a_query_that_is_no_utf8_is_read_in_part(frames, model, capsys) -> None:
    assert retrieve("red \udcff chair", "--images", str(frames), "--model", model, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["notes"] == ["1 characters that are no Unicode left out"]


def test_sentences_come_in_the_order_of_their_scores(frames, model, tmp_path, capsys) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_bytes(
        "A red chair.\n\nEin Tisch\n红沙发\n...\nA red chair.\n".encode() + b"caf\xe9\n"
    )
    words = ("--sentences", str(lines), "--image", str(frames / "a.png"), "--model", model)
    assert retrieve(*words, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert {row["text"] for row in told["ranking"]} == {
        "A red chair.", "Ein Tisch", "红沙发", "caf\ufffd"
    }  # fmt: skip
    assert told["skipped"] == {
        "line 5": "no word",
        "line 7": "read in part: 1 characters that are no Unicode left out",
    }
    scores = [row["score"] for row in told["ranking"]]
    assert scores == sorted(scores, reverse=True)
    assert read_sentences(tiny_saved(), lines)[0] == [
        "A red chair.", "Ein Tisch", "红沙发", "caf\ufffd"
    ]  # fmt: skip
    out = tmp_path / "page"
    assert retrieve(*words, "--out", str(out)) == 0
    page = (out / "index.html").read_text(encoding="utf-8")
    assert page.count("<img ") == 1
    assert "红沙发" in page


def test_bad_input_ends_in_one_line(frames, model, tmp_path, capsys) -> None:
    empty, unreadable = tmp_path / "empty", tmp_path / "unreadable"
    empty.mkdir()
    unreadable.mkdir()
    (unreadable / "x.png").write_bytes(b"x")
    lines = tmp_path / "lines.txt"
    lines.write_text("...\n")
    images = ("--images", str(frames))
    cases = [
        (("red", "--images", str(tmp_path / "nowhere")), "no such folder"),
        (("red", "--images", str(empty)), "no files in"),
        (("red", "--images", str(unreadable)), "none of 1 files in"),
        (("", *images), "TEXT has no word"),
        (("  ... ", *images), "TEXT has no word"),
        (("red", *images, "--top", "0"), "--top must be 1 or more"),
        (("red",), "give a sentence and a folder"),
        ((*images,), "give a sentence and a folder"),
        (("red", *images, "--sentences", str(lines)), "give a sentence and a folder"),
        (("--sentences", str(lines), "--image", str(frames / "a.png")), "no sentence in"),
        (("--sentences", str(lines), "--image", str(frames / "notes.txt")), "no image of a known"),
        (("--sentences", str(frames / "none"), "--image", str(frames / "a.png")), "No such file"),
        (("red", *images, "--out", str(frames)), "holds other files"),
        (("red", *images, "--out", str(frames / "a.png")), "is a file; name a folder"),
    ]
    for words, message in cases:
        assert retrieve(*words, "--model", model) == 2, words
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert retrieve("red", *images, "--model", "nothing") == 2
    assert "no mural 'nothing'" in capsys.readouterr().err


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


def test_the_page_is_whole_and_needs_nothing_else(frames, model, tmp_path, capsys) -> None:
    out = tmp_path / "found"
    query = "<b>red</b> \u202e chair"
    words = (query, "--images", str(frames), "--model", model, "--out", str(out))
    assert retrieve(*words) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out / "index.html")
    assert [path.name for path in out.iterdir()] == ["index.html"]
    page = Strict()
    page.feed((out / "index.html").read_text(encoding="utf-8"))
    page.close()
    assert not page.open
    tags = [tag for tag, _ in page.found]
    assert tags.count("img") == 6
    assert not {"script", "link", "a", "b"} & set(tags)
    assert all(
        attributes["src"].startswith("data:image/jpeg;base64,")
        for tag, attributes in page.found if tag == "img"
    )  # fmt: skip
    text = "".join(page.text)
    assert printable(HOSTILE) in text
    assert printable(query) in text
    for reason in ("empty file", "no image of a known format", "not a file"):
        assert reason in text
    assert retrieve(*words, "--top", "1") == 0  # again, over what is there
    assert (out / "index.html").read_text().count("<img ") == 1


@pytest.mark.skipif(not BROWSER, reason="no Chromium (apt-get install chromium)")
def test_a_browser_shows_the_page(frames, model, tmp_path) -> None:
    out, shot = tmp_path / "found", tmp_path / "page.png"
    assert (
        retrieve("a red chair", "--images", str(frames), "--model", model, "--out", str(out)) == 0
    )
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,1200",
    ]  # fmt: skip
    address = (out / "index.html").as_uri()
    # Either one of the two is done in a call.
    for words in ([f"--screenshot={shot}"], ["--dump-dom"]):
        done = subprocess.run(
            [*command, *words, address], check=True, capture_output=True, timeout=200, text=True
        )
    assert "<title>Retrieved: best fit first</title>" in done.stdout
    assert done.stdout.count("<li>") == 6
    assert "<script" not in done.stdout
    with Image.open(shot) as image:
        assert len(np.unique(np.asarray(image.convert("L")))) > 50
