"""`decisive dream`: walks, what is written of them, answers line by line, bad input."""

import io
import itertools
import json
import math
import shlex
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from dream_cases import HOUSE, SIZE, checkpoint, painted_folder, spoil_depth, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from pathdreamer_cases import painted_house
from PIL import Image

from decisive import cli
from decisive.arguments import parse
from decisive.dream import SCENE, Arguments, _places
from decisive.dream_film import FPS, camera_way, write_film
from decisive.dream_pictures import (
    PALETTE,
    FloorMap,
    class_picture,
    contact_sheet,
    depth_picture,
    ramp,
    score_line,
    write_panorama,
)
from decisive.scenes import (
    FolderScene,
    HouseScene,
    open_scene,
    random_path,
    read_place,
    viewpoint_place,
)
from decisive.surfaces import Surface, between
from decisive.walks import Walk, dream_seed, measures
from envs.indoor.equirectangular import directions
from envs.indoor.worlds import open_world
from world_models.pathdreamer.memory import read_ply
from world_models.pathdreamer.panoramas import House, PanoramaSet, Seen
from world_models.pathdreamer.places import class_shares

PATH = "15,14,6"


@pytest.fixture(scope="module")
def house():
    return HouseScene(HOUSE)


def dream(out: Path, *words: str, awake: bool = True) -> int:
    """The verb with a tiny model, without a film."""
    return cli.main(["dream", "--model", checkpoint(awake), "--no-film", "--out", str(out), *words])


def results(out: Path) -> dict:
    return json.loads((out / "results.json").read_text())


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_a_walk_writes_what_it_saw_and_dreamed(tmp_path, capsys, house):
    out = tmp_path / "dream"
    assert dream(out, "--scene", HOUSE, "--path", PATH, "--samples", "2") == 0
    assert str(out / "contact.png") in capsys.readouterr().out
    found = results(out)
    assert [step["seen"] for step in found["steps"]] == [True, False, False]
    assert [step["hops"] for step in found["steps"]] == [0, 1, 2]
    assert found["steps"][0]["imagined"] == 0 < found["steps"][1]["imagined"] < 1
    assert found["steps"][1]["place"] == f"{HOUSE}_014"
    assert {"command", "commit", "versions", "machine", "generator"} <= set(found)
    names = {path.name for path in out.iterdir()}
    kinds = ("rgb", "classes", "depth")
    for step, views in ((0, ("truth",)), (1, ("truth", "dream_1", "dream_2"))):
        assert {f"step_{step:02d}_{view}_{kind}.png" for view in views for kind in kinds} <= names
    assert not any(name.startswith("step_00_dream") for name in names)
    truth = house.observe(viewpoint_place(house.graph, 14), SIZE)
    np.testing.assert_array_equal(pixels(out / "step_01_truth_rgb.png"), truth.rgb)
    classes = Image.open(out / "step_01_truth_classes.png")
    np.testing.assert_array_equal(np.asarray(classes), truth.semantic)
    np.testing.assert_array_equal(np.asarray(classes.convert("RGB")), class_picture(truth.semantic))
    millimetres = pixels(out / "step_01_truth_depth.png")
    np.testing.assert_allclose(millimetres / 1000, truth.depth, atol=6e-4)
    points = read_ply(out / "points.ply")
    assert len(points) > SIZE[0] * SIZE[1]


def test_a_seed_repeats_itself_and_samples_differ(tmp_path, capsys):
    words = ("--path", PATH, "--samples", "2", "--json")
    told = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert dream(tmp_path / name, *words, "--seed", seed) == 0
        told.append(json.loads(capsys.readouterr().out))
    assert told[0]["measures"] == told[1]["measures"] != told[2]["measures"]
    last = "step_02_dream_{}_classes.png"
    files = [
        (tmp_path / name / last.format(k)).read_bytes() for name, k in ("a1", "b1", "c1", "a2")
    ]
    assert files[0] == files[1]
    assert len(set(files)) == 3


def test_at_temperature_0_all_samples_are_one(tmp_path):
    assert dream(tmp_path / "a", "--path", PATH, "--temperature", "0", "--samples", "2") == 0
    for kind in ("rgb", "depth"):
        first, second = (
            (tmp_path / "a" / f"step_02_dream_{sample}_{kind}.png").read_bytes()
            for sample in (1, 2)
        )
        assert first == second


def test_a_model_that_copies_scores_as_copying_does(tmp_path):
    assert dream(tmp_path / "a", "--path", PATH, awake=False) == 0
    scores = results(tmp_path / "a")["measures"]
    for where in ("hole", "seen", "all"):
        for name, value in scores[where].items():
            if name != "rgb_mae":
                assert value == pytest.approx(scores[f"{where}_nearest_fill"][name], abs=1e-3)


def test_measures_of_the_truth_itself_are_perfect(house):
    walk = Walk(house, tiny(), samples=1)
    walk.see(viewpoint_place(house.graph, 15))
    step = walk.dream(viewpoint_place(house.graph, 14))
    dreamed = step.dreams[0]
    truth = step.truth
    object.__setattr__(dreamed, "semantic", truth.semantic)
    object.__setattr__(dreamed, "depth", truth.depth)
    object.__setattr__(dreamed, "rgb", truth.rgb)
    scores = measures([step])
    assert scores["hole"]["accuracy"] == scores["hole"]["miou"] == 1
    assert scores["all"]["depth_mae"] == scores["all"]["rgb_mae"] == 0
    assert scores["hole_nearest_fill"]["accuracy"] < 1


def test_back_where_one_has_really_been_nothing_is_imagined(house):
    walk = Walk(house, tiny())
    walk.see(viewpoint_place(house.graph, 15))
    away = walk.dream(viewpoint_place(house.graph, 14))
    back = walk.dream(viewpoint_place(house.graph, 15))
    assert back.imagined < 0.05 < 0.5 < away.imagined
    assert [step.hops for step in walk.steps] == [0, 1, 2]


def test_without_a_path_a_shortest_way_of_so_many_hops_is_drawn(tmp_path):
    assert dream(tmp_path / "a", "--hops", "3", "--seed", "4") == 0
    steps = results(tmp_path / "a")["steps"]
    graph = open_world("houses").graph(HOUSE)
    names = [step["place"] for step in steps]
    assert len(names) == 4
    assert graph.length(names) == pytest.approx(graph.distance(names[0], names[-1]))


def test_panoramas_of_ones_own_are_a_scene(tmp_path):
    folder = painted_folder(tmp_path / "mine")
    words = ("--images", folder, "--scene", "flat", "--path", "0,1,2")
    assert dream(tmp_path / "a", *words, "--size", "32") == 0
    found = results(tmp_path / "a")
    assert found["scene"] == "flat"
    assert "generator" not in found
    assert "hole" in found["measures"]


def test_where_no_truth_is_known_there_is_none(tmp_path):
    folder = painted_folder(tmp_path / "mine")
    x, y, z = open_scene(None, folder).graph.positions[0]
    ahead = f"{x + 0.3} {y} {z}"
    assert dream(tmp_path / "a", "--images", folder, "--path", f"0,{ahead}") == 0
    found = results(tmp_path / "a")
    assert found["measures"] == {}
    assert not list((tmp_path / "a").glob("step_01_truth*"))


def answers(monkeypatch, capsys, out: Path, lines: str, *words: str) -> tuple[int, list[dict], str]:
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    status = dream(out, "--path", "-", *words)
    captured = capsys.readouterr()
    return status, [json.loads(line) for line in captured.out.splitlines()], captured.err


def test_an_agent_is_answered_line_by_line(tmp_path, monkeypatch, capsys):
    status, told, _ = answers(monkeypatch, capsys, tmp_path / "a", "15\n14\n\n6\n")
    assert status == 0
    assert [answer["step"] for answer in told] == [0, 1, 2]
    assert told[0]["seen"]
    assert not told[1]["seen"]
    assert len(told[1]["files"]) == 2
    for answer in told:
        assert sum(answer["classes"].values()) == pytest.approx(1, abs=0.02)
        for files in answer["files"]:
            assert all(Path(name).is_file() for name in files.values())
    assert results(tmp_path / "a")["steps"][2]["place"] == f"{HOUSE}_006"


def test_steps_one_by_one_dream_what_the_whole_path_dreams(tmp_path, monkeypatch, capsys):
    assert dream(tmp_path / "path", "--path", PATH, "--seed", "3") == 0
    capsys.readouterr()
    lines = PATH.replace(",", "\n")
    answers(monkeypatch, capsys, tmp_path / "steps", lines, "--seed", "3")
    name = "step_02_dream_2_rgb.png"
    assert (tmp_path / "path" / name).read_bytes() == (tmp_path / "steps" / name).read_bytes()


def test_a_refused_step_is_answered_and_one_stays(tmp_path, monkeypatch, capsys):
    lines = "15\nnowhere\n0\n14\n"
    status, told, error = answers(monkeypatch, capsys, tmp_path / "a", lines)
    assert status == 2
    assert "2 of the places were refused" in error
    assert error.count("\n") == 1
    assert ["error" in answer for answer in told] == [False, True, True, False]
    assert "nowhere" in told[1]["error"]
    assert "from 15 one can go to 14" in told[2]["error"]
    assert [step["place"][-3:] for step in results(tmp_path / "a")["steps"]] == ["015", "014"]


def test_nothing_is_written_where_every_line_is_refused(tmp_path, monkeypatch, capsys):
    status, told, _ = answers(monkeypatch, capsys, tmp_path / "a", "nowhere\n")
    assert status == 2
    assert len(told) == 1
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--scene", "castle"), "unknown scan 'castle'"),
        (("--path", "0,99"), "has no viewpoint '99'"),
        (("--path", "15,0"), "no straight way from viewpoint 15 to 0"),
        (("--path", "15,7.4 1.4 9.0"), "meets a wall or furniture"),
        (("--path", "15,2.0 8.0 1.5"), "meets a wall or furniture"),
        (("--path", "15,nan 1 1"), "three finite numbers"),
        (("--path", "15,one two three"), "three numbers in metres"),
        (("--path", ""), "has no viewpoint ''"),
        (("--size", "50"), "multiples of"),
        (("--size", "-64"), "multiples of"),
        (("--samples", "0"), "samples must be at least 1"),
        (("--seen", "0"), "seen must be at least 1"),
        (("--hops", "0"), "hops must be at least 1"),
        (("--seed", "-1"), "seed must not be negative"),
        (("--temperature", "-1"), "temperature must be at least 0"),
        (("--images", "not-there"), "holds no panoramas.json"),
        (("--model", "not-there"), "no world model 'not-there'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(words, said, tmp_path, capsys):
    assert dream(tmp_path / "a", *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_spoilt_depth_is_refused(value, tmp_path, capsys):
    folder = painted_folder(tmp_path / "mine")
    spoil_depth(folder, value)
    assert dream(tmp_path / "a", "--images", folder, "--path", "0,1") == 2
    error = capsys.readouterr().err
    assert "depth must be finite metres" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "a").exists()


def test_broken_folders_are_refused(tmp_path, capsys):
    folder = painted_folder(tmp_path / "mine")
    assert dream(tmp_path / "a", "--images", folder, "--scene", "cellar") == 2
    assert "has no house 'cellar'" in capsys.readouterr().err
    semantic = Path(folder) / "semantic.bin"
    whole = semantic.read_bytes()
    semantic.write_bytes(bytes([99]) * len(whole))
    assert dream(tmp_path / "a", "--images", folder, "--path", "0,1") == 2
    assert "class ids must be below 41" in capsys.readouterr().err
    semantic.write_bytes(whole[:-1])
    assert dream(tmp_path / "a", "--images", folder) == 2
    assert "must have" in capsys.readouterr().err
    (Path(folder) / "panoramas.json").write_text("[")
    assert dream(tmp_path / "a", "--images", folder) == 2
    assert "not valid JSON" in capsys.readouterr().err


def test_a_folder_that_holds_something_else_is_not_replaced(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert dream(tmp_path, "--path", PATH) == 2
    assert "something else than a dream" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    assert dream(tmp_path / "a", "--path", PATH) == 0
    assert dream(tmp_path / "a", "--path", "15,14") == 0
    assert not list((tmp_path / "a").glob("step_02*"))


def test_a_way_between_positions_needs_room_for_the_body(house):
    start = viewpoint_place(house.graph, 15)
    beyond = read_place(house.graph, "2.0 8.0 1.5")
    with pytest.raises(ValueError, match=r"from 15 to \(2\.0, 8\.0\) meets a wall or furniture"):
        house.check_step(start, beyond)
    house.check_step(start, read_place(house.graph, "7.5 1.4 1.5"))


def test_a_way_through_what_a_panorama_shows_is_refused(tmp_path):
    scene = open_scene(None, painted_folder(tmp_path / "mine"))
    start = viewpoint_place(scene.graph, 0)
    x, y, z = start.position
    scene.check_step(start, read_place(scene.graph, f"{x} {y} {z - 0.5}"))
    with pytest.raises(ValueError, match="meets something after"):
        scene.check_step(start, read_place(scene.graph, f"{x} {y} {z - 5}"))


def test_places_have_names_numbers_and_positions(house):
    graph = house.graph
    by_name, by_number = (read_place(graph, text) for text in (f"{HOUSE}_004", " 4 "))
    assert by_name.viewpoint == by_number.viewpoint == graph.viewpoints[4]
    np.testing.assert_array_equal(by_name.position, graph.positions[4])
    free = read_place(graph, "1 2.5 1.5")
    assert free.viewpoint is None
    assert free.position.tolist() == [1, 2.5, 1.5]
    with pytest.raises(ValueError, match=f"perhaps {HOUSE}_004"):
        read_place(graph, f"{HOUSE}_0004")


@given(hops=st.integers(1, 30), seed=st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_random_paths_are_ways_and_no_longer_than_asked(hops, seed):
    graph = open_world("houses").graph(HOUSE)
    names = [place.viewpoint for place in random_path(graph, hops, np.random.default_rng(seed))]
    assert 2 <= len(names) <= hops + 1
    assert len(set(names)) == len(names)
    graph.length(names)  # refuses what is no way


def test_the_paths_of_the_help_can_be_walked():
    examples = [line for line in (Arguments.__doc__ or "").splitlines() if "decisive dream" in line]
    walked = 0
    for line in examples:
        words = shlex.split(line.split("decisive dream")[1])
        if "--images" in words or "-" in words:
            continue
        arguments = parse(Arguments, words, "dream")
        walked += len(_places(arguments, HouseScene(arguments.scene or SCENE))) > 1
    assert walked == 4


def test_a_scene_without_a_way_needs_a_path():
    alone = House("alone", painted_house(np.random.default_rng(0), "x").panoramas[:1], ((),))
    scene = FolderScene(PanoramaSet.of_houses([alone]))
    with pytest.raises(ValueError, match="give --path"):
        random_path(scene.graph, 2, np.random.default_rng(0))


def test_a_folder_of_another_size_is_looked_at_by_its_nearest_pixels(tmp_path):
    scene = open_scene(None, painted_folder(tmp_path / "mine"))
    place = viewpoint_place(scene.graph, 1)
    whole, half = scene.observe(place, SIZE), scene.observe(place, (SIZE[0] // 2, SIZE[1] // 2))
    np.testing.assert_array_equal(half.depth, whole.depth[1::2, 1::2])
    double = scene.observe(place, (2 * SIZE[0], 2 * SIZE[1]))
    np.testing.assert_array_equal(double.semantic[::2, ::2], whole.semantic)


@given(seed=st.integers(0, 1000), sample=st.integers(0, 9))
def test_no_two_samples_share_a_seed(seed, sample):
    assert dream_seed(seed, sample) not in {
        dream_seed(seed, sample + 1),
        dream_seed(seed + 1, sample),
    }


# Pictures.


def test_every_class_has_a_colour_of_its_own():
    assert len({tuple(colour) for colour in PALETTE.tolist()}) == 41
    apart = np.abs(PALETTE[:, None].astype(int) - PALETTE[None]).sum(-1) + 999 * np.eye(41)
    assert apart.min() > 20


def test_depth_is_bright_where_it_is_near_and_black_where_there_is_none():
    near, far, none = depth_picture(np.array([[0.5, 9.0, 0.0]]))[0]
    assert near.sum() > far.sum() > 0
    assert none.tolist() == [0, 0, 0]
    assert ramp(np.array([0.0, 1.0])).tolist() == [[253, 231, 37], [68, 1, 84]]


def test_far_depth_ends_where_16_bits_do(tmp_path):
    view = Seen(
        np.zeros((2, 4, 3), np.uint8),
        np.zeros((2, 4), np.uint8),
        np.full((2, 4), 80, np.float32),
        np.zeros(3),
    )
    names = write_panorama(tmp_path, "far", view)
    assert pixels(tmp_path / names["depth"]).max() == 65_535


def test_the_sheet_has_a_column_for_each_step_and_a_row_for_each_sample(house):
    def sheet(steps: int, samples: int) -> np.ndarray:
        walk = Walk(house, tiny(), samples=samples)
        for number, index in enumerate((15, 14, 6)[:steps]):
            place = viewpoint_place(house.graph, index)
            _ = walk.dream(place) if number else walk.see(place)
        return contact_sheet(walk.steps, "title", measures(walk.steps))

    assert sheet(3, 1).shape[1] > sheet(2, 1).shape[1]
    assert sheet(2, 3).shape[0] > sheet(2, 1).shape[0]


def test_the_sentence_on_measures_tells_both_sides():
    scores = {
        "hole": {"depth_mae": 0.5, "accuracy": 0.75},
        "hole_nearest_fill": {"depth_mae": 1.25, "accuracy": 0.5},
    }
    line = score_line(scores)
    assert "0.50 m, 75 %" in line
    assert "1.25 m and 50 %" in line
    assert "Nothing to measure" in score_line({})


def test_positions_on_a_map_keep_their_distances(house):
    floor = FloorMap(house.graph, house.house, (300, 400))
    assert floor.pixels.shape[0] <= 301
    a, b = house.graph.positions[[3, 9]]
    (ax, ay), (bx, by) = floor.point(a), floor.point(b)
    assert math.hypot(bx - ax, by - ay) == pytest.approx(
        floor.scale * math.hypot(*(b - a)[:2]), rel=1e-6
    )
    north = a + np.array([0, 1, 0])
    assert floor.point(north)[1] < ay


@given(split=st.floats(0.0, 1.0))
def test_shares_are_of_the_solid_angle(split):
    ids = np.zeros((40, 80), np.uint8)
    rows = round(40 * split)
    ids[:rows] = 1
    shares = class_shares(ids, 3)
    assert shares.sum() == pytest.approx(1)
    assert shares[1] == pytest.approx((1 - math.cos(math.pi * rows / 40)) / 2)
    chance = np.eye(3)[ids].transpose(2, 0, 1)
    np.testing.assert_allclose(class_shares(chance), shares, atol=1e-12)


# Surfaces and the film.


def sphere(radius: float = 2.0, height: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Colours that tell where a pixel looks, and one depth."""
    rgb = np.rint(127 + 120 * directions(height, 2 * height)).astype(np.uint8)
    return rgb, np.full((height, 2 * height), radius, np.float32)


def test_from_where_a_panorama_was_taken_its_surface_looks_like_it():
    rgb, depth = sphere()
    position = np.array([3.0, -1.0, 1.5])
    rays = directions(16, 32).reshape(-1, 3).astype(np.float32)
    seen, met = Surface(rgb, depth, position).look(position, rays)
    assert met.all()
    np.testing.assert_allclose(seen, rgb.reshape(-1, 3), atol=1.0)


def test_a_step_to_the_side_shows_the_parallax():
    rgb, depth = sphere()
    seen, met = Surface(rgb, depth, np.zeros(3)).look(
        np.array([1.0, 0.0, 0.0]), np.array([[0.0, 1.0, 0.0]], np.float32)
    )
    # The ray meets the sphere at (1, sqrt(3), 0): 60 degrees from +x.
    expected = 127 + 120 * np.array([0.5, math.sqrt(3) / 2, 0.0])
    assert met.all()
    np.testing.assert_allclose(seen[0], expected, atol=2.5)


def test_across_a_jump_of_depth_the_surface_is_torn():
    rgb, depth = sphere(2.0)
    depth[:, 12:20] = 4.0  # a niche ahead, 45 degrees to either side
    surface = Surface(rgb, depth, np.zeros(3))
    # From the left through the opening to what the right edge hid: its side wall, never seen.
    camera = np.array([0.0, 1.0, 0.0])
    edge = math.pi / 4
    hidden = 3.0 * np.array([math.cos(edge), -math.sin(edge), 0.0])
    ray = (hidden - camera).astype(np.float32)[None]
    assert not surface.look(camera, ray)[1].any()
    assert surface.look(camera, ray, across_tears=True)[1].all()
    assert between(surface, surface, 0.5, camera, ray).any()


def test_where_there_is_no_depth_there_is_no_surface():
    rgb, depth = sphere()
    surface = Surface(rgb, np.zeros_like(depth), np.zeros(3))
    seen, met = surface.look(np.zeros(3), np.array([[1.0, 0.0, 0.0]], np.float32))
    assert not met.any()
    assert not seen.any()


def test_between_two_panoramas_colours_are_blended():
    dark, depth = sphere()
    bright = dark // 2
    first, second = (Surface(rgb, depth, np.zeros(3)) for rgb in (dark, bright))
    rays = directions(8, 16).reshape(-1, 3).astype(np.float32)
    ends = [between(first, second, share, np.zeros(3), rays) for share in (0.0, 1.0)]
    middle = between(first, second, 0.5, np.zeros(3), rays)
    np.testing.assert_allclose(middle, (ends[0] + ends[1]) / 2, atol=1e-3)


def test_the_camera_walks_the_path_without_jumps_and_looks_around_at_its_end():
    corners = [np.array(p, float) for p in ((0, 0, 1.5), (2, 0, 1.5), (2, 3, 1.5), (0, 3, 1.5))]
    shots = list(camera_way(corners))
    assert shots[0].leg == 0
    assert shots[0].share == 0
    assert shots[0].yaw == pytest.approx(0)
    for before, after in itertools.pairwise(shots):
        assert 0 <= after.leg - before.leg <= 1
        turn = (after.yaw - before.yaw + math.pi) % math.tau - math.pi
        assert abs(turn) < math.radians(200) / FPS
        assert abs(after.leg + after.share - before.leg - before.share) < 0.2
    walking = [shot for shot in shots if shot.leg == 1 and shot.share > 0]
    assert all(shot.yaw == pytest.approx(math.pi / 2) for shot in walking)
    assert shots[-1].leg == 3
    assert shots[-1].yaw == pytest.approx(math.pi + math.tau)


def test_standing_still_is_filmed_too():
    here = np.array([1.0, 1.0, 1.5])
    assert {shot.leg for shot in camera_way([here])} == {0}
    assert len(list(camera_way([here, here]))) > 2


def test_the_film_shows_every_frame_of_the_way(tmp_path, house, monkeypatch):
    monkeypatch.setattr("decisive.dream_film._DREAMED", (12, 16))
    monkeypatch.setattr("decisive.dream_film._TRUE", (12, 16))
    monkeypatch.setattr("decisive.dream_film.FPS", 2)
    walk = Walk(house, tiny())
    walk.see(viewpoint_place(house.graph, 15))
    walk.dream(viewpoint_place(house.graph, 14))
    write_film(tmp_path / "film.mp4", walk)
    frames, _ = imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "film.mp4"))
    assert frames == len(list(camera_way([s.place.position for s in walk.steps]))) + 2 - 1
