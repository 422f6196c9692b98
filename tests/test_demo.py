"""The demo, the view and the films: run small, from the command line's side."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from agents import make_policy, save_policy
from decisive import cli, demo, view
from decisive.demo import CONTESTS, Contest, Entrant
from decisive.evaluation import EvaluationConfig
from decisive.films import Clip, compose, record, side_by_side, solo
from decisive.options import make_env
from decisive.pictures import BAD, GOOD, Page, beside, clipped, font, halved, save_png
from learning.demonstrations import Demonstrations

# imageio-ffmpeg leaves the pipes of a finished reader to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

ENV = "decisive/BlockPush-v0"
SIZE = (120, 160)


def save_small(folder, method, control):
    """An untrained policy for pushing."""
    env = make_env(ENV, {"control": control})
    space = env.action_space
    rng = np.random.default_rng(0)
    demos = Demonstrations(
        {"state": rng.normal(0.3, 0.1, (40, 10)).astype(np.float32)},
        rng.uniform(space.low, space.high, (40, *space.shape)).astype(np.float32),
        np.zeros(40, np.float32),
        np.array([0, 40]),
        space.low,
        space.high,
    )
    env.close()
    torch.manual_seed(0)
    settings = {"width": 16, "depth": 1}
    if method == "ibc":
        settings |= {"head_width": 16, "dfo": {"n_samples": 32}}
    save_policy(make_policy(method, demos, settings), folder)
    return str(folder)


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policies")
    return {
        (method, control): save_small(folder / f"{method}-{control}", method, control)
        for method, control in (("mse", "delta"), ("ibc", "delta"), ("ibc", "push"))
    }


def config(policy="expert", **options):
    return EvaluationConfig(ENV, policy, episodes=1, options=options)


def frames_of(path):
    import imageio_ffmpeg

    reader = imageio_ffmpeg.read_frames(str(path))
    width, height = next(reader)["size"]
    return [np.frombuffer(f, np.uint8).reshape(height, width, 3) for f in reader]


# Recording.


def test_a_clip_shows_every_step_and_the_end():
    clip = record(config(max_episode_steps=4), 0, SIZE)
    assert len(clip) == 5
    assert clip.shape == (*SIZE, 3)
    assert clip.seconds == pytest.approx((0.0, 0.1, 0.2, 0.3, 0.4))
    assert clip.episode.length == 4
    assert clip.episode.success is False
    assert not np.array_equal(clip.frame(0), clip.frame(4))
    np.testing.assert_array_equal(clip.frame(4), clip.frame(99))


def test_a_clip_shows_the_inside_of_a_push():
    clip = record(config(control="push", max_episode_steps=1, arm="cylinder"), 0, SIZE, every=2)
    assert clip.episode.length == 1
    assert len(clip) > 5
    assert np.diff(clip.seconds[:-1]) == pytest.approx(0.2)


def test_the_full_arm_is_filmed_unless_another_is_asked_for():
    arm = record(config(max_episode_steps=1), 0, SIZE).frame(0)
    bare = record(config(max_episode_steps=1, arm="cylinder"), 0, SIZE).frame(0)
    white = [(picture.min(axis=2) > 238).sum() for picture in (arm, bare)]
    assert white[0] > 100 > white[1]


def test_energy_stands_beside_the_world(policies):
    plain = record(config(policies["ibc", "delta"], max_episode_steps=2), 0, SIZE)
    clip = record(config(policies["ibc", "delta"], max_episode_steps=2), 0, SIZE, energy=True)
    assert clip.shape[0] == SIZE[0]
    assert clip.shape[1] > SIZE[1] + SIZE[0]
    np.testing.assert_array_equal(clip.frame(0)[:, : SIZE[1]], plain.frame(0))
    push = config(policies["ibc", "push"], control="push", max_episode_steps=1, arm="cylinder")
    assert record(push, 0, SIZE, 4, energy=True).shape[1] > SIZE[1] + 2 * SIZE[0]


def test_one_frame_alone_is_the_same_moment_drawn_finely():
    many = record(config(max_episode_steps=4), 0, SIZE)
    one = record(config(max_episode_steps=4), 0, SIZE, only=3)
    assert len(one) == 1
    assert one.seconds == (many.seconds[3],)
    assert one.shape == many.shape
    gaps = [np.abs(one.frame(0).astype(int) - many.frame(i)).mean() for i in (0, 3)]
    assert gaps[1] < gaps[0]
    with pytest.raises(ValueError, match="has 3 frames, so frame 9"):
        record(config(max_episode_steps=2), 0, SIZE, only=9)


def test_what_has_no_energy_is_refused(policies):
    with pytest.raises(ValueError, match="no energy"):
        record(config(max_episode_steps=1), 0, SIZE, energy=True)
    with pytest.raises(ValueError, match="implicit policy"):
        record(config(policies["mse", "delta"], max_episode_steps=1), 0, SIZE, energy=True)


# Composing.


def plain_clip(n, color, success):
    from zlib import compress

    from decisive.episodes import Episode

    frame = np.full((*SIZE, 3), color, np.uint8)
    row = Episode(0, success, 0.5, 0.0, n, (1.0,) * n)
    return Clip(
        (compress(frame.tobytes()),) * n, frame.shape, tuple(0.1 * i for i in range(n)), row
    )


def has(picture, color):
    return bool((np.abs(picture.astype(int) - color).max(axis=2) < 12).sum() > 20)


def test_marks_appear_when_an_episode_is_over():
    clips = [plain_clip(3, 90, True), plain_clip(5, 150, False)]
    names, tally = ("first", "second"), (0, 0)
    running = compose(clips, 1, names, "title", tally, 0, (False, False), "done")
    half = compose(clips, 3, names, "title", tally, 0, (True, False), "done")
    over = compose(clips, 4, names, "title", tally, 0, (True, True), "done")
    assert [has(frame, GOOD) for frame in (running, half, over)] == [False, True, True]
    assert [has(frame, BAD) for frame in (running, half, over)] == [False, False, True]
    assert running.shape == over.shape
    assert running.shape[1] > 2 * SIZE[1]


def test_a_film_lasts_as_long_as_the_longest_and_a_second(tmp_path):
    rows = [[plain_clip(3, 90, True), plain_clip(5, 150, False)]] * 2
    side_by_side(rows, ("a", "b"), "title", tmp_path / "two.mp4", 10)
    assert len(frames_of(tmp_path / "two.mp4")) == 2 * (5 + 9)
    solo(plain_clip(4, 90, True), "title", tmp_path / "one.mp4", 10, "note")
    assert len(frames_of(tmp_path / "one.mp4")) == 4 + 9


def test_columns_must_match_their_names(tmp_path):
    for rows in ([], [[plain_clip(1, 90, True)]]):
        with pytest.raises(ValueError, match="2 clips"):
            side_by_side(rows, ("a", "b"), "t", tmp_path / "x.mp4", 10)
    assert not list(tmp_path.iterdir())


def test_panels_stand_beside_each_other():
    left, right = np.zeros((4, 3, 3), np.uint8), np.full((4, 2, 3), 9, np.uint8)
    both = beside([left, right], gap=5)
    assert both.shape == (4, 10, 3)
    assert np.all(both[:, 3:8] == 255)
    assert np.all(both[:, 8:] == 9)
    with pytest.raises(ValueError, match="one height"):
        beside([left, right[:3]])


def test_long_names_are_cut_to_their_width():
    assert clipped("short", 500, 16) == "short"
    cut = clipped("a very long name indeed", 90, 16)
    assert cut.endswith("…")
    assert font(16).getlength(cut) <= 90


def test_pages_have_even_sizes_and_pictures_round_trip(tmp_path):
    page = Page(101, 51)
    page.mark(20, 20, True)
    assert page.pixels().shape == (52, 102, 3)
    assert has(page.pixels(), GOOD)
    assert halved(page.pixels()).shape == (26, 51, 3)
    save_png(page.pixels(), tmp_path / "new" / "page.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new/page.png")), page.pixels())


# The verbs.


def small_contests(policies):
    delta = Contest(
        "insertion",
        "Pushing, in small",
        ENV,
        {"max_episode_steps": 3},
        (
            Entrant("scripted expert", "expert"),
            Entrant("explicit (MSE)", policies["mse", "delta"]),
            Entrant("implicit (IBC)", policies["ibc", "delta"]),
        ),
        "pushed",
    )
    push = replace(
        delta,
        key="sorting",
        options={"control": "push", "max_episode_steps": 1},
        entrants=(Entrant("expert", "expert"), Entrant("implicit", policies["ibc", "push"])),
        every=6,
    )
    return delta, push


def test_demo_makes_tables_films_and_a_picture(policies, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--episodes", "3", "--workers", "1", "--out", str(out), "--seed", "4"]
    assert demo.main(words, small_contests(policies)) == 0
    printed = capsys.readouterr().out
    assert "scripted expert" in printed
    assert "0 of 3" in printed
    assert "ms/action" in printed
    names = {"insertion.mp4", "insertion-energy.mp4", "sorting.mp4", "sorting-energy.mp4"}
    names |= {"picture.png", "results.json"}
    assert {path.name for path in out.iterdir()} == names
    assert all(str(out / name) in printed for name in names)
    report = json.loads((out / "results.json").read_text())
    ours = report["results"]["insertion"][policies["ibc", "delta"]]
    assert ours["episodes"] == 3
    assert [row["seed"] for row in ours["per_episode"]] == [4, 5, 6]
    assert report["results"]["sorting"]["expert"]["episodes"] == 1
    assert len(report["comparisons"]["insertion"]) == 2
    assert len(frames_of(out / "insertion.mp4")) >= 2 * 4
    assert np.asarray(Image.open(out / "picture.png")).shape[0] == demo.STILL_SIZE[0]


def test_demo_without_films_prints_one_json_object(policies, tmp_path, capsys):
    words = ["--episodes", "1", "--workers", "1", "--no-films", "--json", "--contest", "sorting"]
    assert demo.main([*words, "--out", str(tmp_path)], small_contests(policies)) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["results"]) == {"sorting"}
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--episodes", "0"], "--episodes must be at least 1, got 0"),
        (["--workers", "0"], "--workers must be at least 1"),
        (["--seed", "-1"], "--seed must be at least 0"),
        (["--contest", "chess"], "insertion, sorting"),
        (["--speed", "9"], "--speed"),
    ],
)
def test_bad_words_are_one_line_and_status_two(words, message, tmp_path, capsys):
    assert cli.main(["demo", *words, "--out", str(tmp_path / "out")]) == 2
    complaint = capsys.readouterr().err.strip().splitlines()
    assert len(complaint) == 1
    assert message in complaint[0]
    assert not (tmp_path / "out").exists()


def test_a_missing_policy_is_named_before_any_work(policies, tmp_path):
    delta, _ = small_contests(policies)
    broken = replace(delta, entrants=(*delta.entrants, Entrant("new", "no-such-policy")))
    with pytest.raises(ValueError, match="no-such-policy"):
        demo.main(["--out", str(tmp_path / "out")], (broken,))
    assert not (tmp_path / "out").exists()


def test_out_must_not_be_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file"):
        demo.main(["--out", str(tmp_path / "file")], ())


def test_the_contests_are_those_promised():
    insertion, sorting = CONTESTS
    assert [e.policy for e in insertion.entrants] == [
        "expert",
        "block-insertion-mse",
        "block-insertion-ibc",
    ]
    assert [e.policy.rpartition("-")[2] for e in sorting.entrants] == ["mse", "mdn", "ibc"]
    assert sorting.options == {"control": "push"}
    for contest in CONTESTS:  # options must fit the environments
        make_env(contest.env, contest.options).close()


def test_view_films_an_episode(policies, tmp_path, capsys):
    out = tmp_path / "view.mp4"
    words = ["--env", ENV, "--seed", "2", "--out", str(out), "--height", "120"]
    words += ["--set", "max_episode_steps=2"]
    assert view.main([*words, "--policy", policies["ibc", "delta"], "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["seed"] == 2
    assert row["length"] == 2
    assert row["out"] == str(out)
    wide = frames_of(out)[0].shape[1]
    assert view.main([*words, "--policy", "expert"]) == 0
    assert capsys.readouterr().out == f"no success after 2 steps: {out}\n"
    assert frames_of(out)[0].shape[1] < wide


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--height", "9"], "--height must be in"),
        (["--every", "0"], "--every must be in"),
        (["--set", "colour=red"], "unknown option"),
        (["--policy", "no-such-policy"], "no-such-policy"),
        (["--out", "view.gif"], r"\.mp4"),
    ],
)
def test_view_refuses_bad_words(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        view.main(["--env", ENV, "--policy", "expert", *words])
    assert not list(tmp_path.iterdir())


def test_a_window_needs_a_display(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(ValueError, match="needs a display"):
        view.main(["--env", ENV, "--policy", "expert", "--human"])
