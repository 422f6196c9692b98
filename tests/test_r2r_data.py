"""Room-to-Room's files, real and broken, and the worlds that read them."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2r_cases import DATA, entry, needs_data, street

from envs.indoor.categories import ID
from envs.indoor.graph import NavigationGraph, read_json
from envs.indoor.matterport import MatterportWorld, ReverieWorld, data_folder
from envs.indoor.r2r_data import (
    MAX_WORDS,
    Instruction,
    check_path,
    check_text,
    dump_submission,
    read_instructions,
    read_submission,
)
from envs.indoor.sketch_world import SketchWorld
from envs.indoor.worlds import WORLDS, World, open_world


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_an_entry_gives_an_instruction_for_each_text(tmp_path: Path) -> None:
    path = tmp_path / "R2R_x.json.gz"
    path.write_bytes(gzip.compress(json.dumps([entry()]).encode()))
    found = read_instructions(path)
    assert [one.instr_id for one in found] == ["7_0", "7_1", "7_2"]
    assert found[1].text == "Walk to the third point."
    assert {(one.scan, one.path, one.heading, one.has_goal) for one in found} == {
        ("case", ("a", "b", "c"), 1.0, True)
    }


def test_a_path_of_one_viewpoint_keeps_its_goal_secret(tmp_path: Path) -> None:
    secret = entry(path=["a"])
    del secret["distance"]
    assert not read_instructions(write(tmp_path / "t.json", [secret]))[0].has_goal
    assert read_instructions(write(tmp_path / "t.json", [entry(path=["a"])]))[0].has_goal


def test_blank_texts_keep_the_numbers_of_the_others(tmp_path: Path) -> None:
    found = read_instructions(
        write(tmp_path / "t.json", [entry(instructions=["Go.", " ", "Stop."])])
    )
    assert [one.instr_id for one in found] == ["7_0", "7_2"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "nested too deeply|not JSON"),
        ("{}", "must hold a list"),
        ("[]", "must hold a list"),
        ("[3]", "entry 0: must be an object"),
        ([entry(), entry()], "entry 1: path_id 7 comes twice"),
        ([entry(path=[])], "entry 0: path must be a list of texts"),
        ([entry(path="abc")], "path must be a list of texts"),
        ([entry(path=["a", 3])], "path must be a list of texts"),
        ([entry(instructions=[])], "instructions must be a list of texts"),
        ([entry(instructions=[None])], "instructions must be a list of texts"),
        ([entry(instructions=[" "])], "all instructions are blank"),
        ([entry(instructions=["..."])], "needs words"),
        ([entry(heading="north")], "heading must be a number"),
        ([entry(heading=True)], "heading must be a number"),
        ('[{"scan": "x", "path_id": 1, "path": ["a"], "instructions": ["go"], "heading": 1e999}]',
         "heading must be finite"),
        ([entry(scan=3)], "must be names"),
        ([entry(path_id=None)], "must be names"),
        ([{"scan": "x"}], "lacks 'path_id'"),
    ],
)  # fmt: skip
def test_malformed_files_are_refused_in_one_line(
    tmp_path: Path, content: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        read_instructions(write(tmp_path / "bad.json", content))
    assert "\n" not in str(error.value)
    assert "bad.json" in str(error.value)


def test_an_instruction_of_ten_thousand_words_is_refused() -> None:
    with pytest.raises(ValueError, match=f"at most {MAX_WORDS} words and 10000 characters"):
        check_text("go " * 10_000)
    with pytest.raises(ValueError, match="at most"):
        check_text("走" * 10_001)  # no spaces: one "word"
    assert check_text("go " * MAX_WORDS)


@pytest.mark.parametrize(
    "text",
    [
        "Go to the café (2nd door), then stop!",
        "走到沙发旁边再停下。",
        "ソファーの横まで歩いて止まる。",
        "सोफे के पास जाकर रुकें।",
        "సోఫా దగ్గరికి వెళ్ళి ఆగండి.",
        "Иди к дивану и остановись.",
        "اذهب إلى الأريكة وتوقف.",
        "소파로 가서 멈추세요.",
        "Đi đến ghế sofa",
        "Go to the cafe\u0301 😀",
    ],
)
def test_living_scripts_are_welcome(text: str) -> None:
    assert check_text(text) == text


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("\U00010000\U00010001 go", "LINEAR B"),
        ("\U00012000", "CUNEIFORM"),
        ("\uf8d0\uf8d1", "U\\+F8D0"),  # private use: Klingon, where it is used
        ("go \ud800", "U\\+D800"),
        ("go \x00", "U\\+0000"),
        ("go \u0378", "no character of Unicode"),
    ],
)
def test_unknown_scripts_are_refused_by_name(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=f"unknown script.*{what}") as error:
        check_text(text)
    assert str(error.value).isascii()


@given(st.text(max_size=60))
def test_any_text_is_taken_as_it_is_or_refused_in_one_line(text: str) -> None:
    complaint = ""
    try:
        assert check_text(text) == text
    except ValueError as error:
        complaint = str(error)
    assert "\n" not in complaint


def test_paths_must_be_walkable() -> None:
    def told(*path: str) -> Instruction:
        return Instruction("7_0", "7", "case", path, 0.0, "go")

    check_path(street(), told("a", "b", "c"))
    check_path(street(), told("a"))
    with pytest.raises(ValueError, match="instruction 7_0: case has no viewpoint 'z'"):
        check_path(street(), told("z"))
    with pytest.raises(ValueError, match=r"instruction 7_0: .*no way leads straight from a to c"):
        check_path(street(), told("a", "c"))


TOLD = (Instruction("7_0", "7", "case", ("a", "b"), 0.0, "go"),)


def test_a_submission_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    walk = [("a", 0.0, 0.0), ("a", 0.5, 0.0), ("b", 0.5, 0.0)]
    path.write_bytes(dump_submission({"7_0": walk, "other_0": walk}))
    assert json.loads(path.read_text())[0] == {
        "instr_id": "7_0",
        "trajectory": [["a", 0.0, 0.0], ["a", 0.5, 0.0], ["b", 0.5, 0.0]],
    }
    assert read_submission(path, TOLD) == {"7_0": ["a", "a", "b"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x", "not JSON"),
        ([], "lacks 1 of 1 instructions, such as 7_0"),
        ({"7_0": []}, "must hold"),
        ([{"instr_id": "7_0"}], "must hold"),
        ([{"instr_id": "7_0", "trajectory": []}], "no trajectory"),
        ([{"instr_id": "7_0", "trajectory": [[]]}], "must hold"),
        ([{"instr_id": "7_0", "trajectory": [[3, 0, 0]]}], "no trajectory"),
        ([{"instr_id": "7_0", "trajectory": [["b", 0, 0]]}], "must begin at the start of its path"),
        (5, "must hold"),
    ],
)
def test_malformed_submissions_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        read_submission(write(tmp_path / "s.json", content), TOLD)
    assert "\n" not in str(error.value)


# A split of houses takes seconds to write.
SLOW = {"houses": pytest.mark.slow}


@pytest.mark.parametrize("name", [pytest.param(n, marks=SLOW.get(n, ())) for n in WORLDS])
def test_a_world_holds_paths_that_can_be_walked_and_views_of_them(name: str) -> None:
    if name in ("r2r", "reverie") and not (DATA / name).is_dir():
        pytest.skip(f"the data of {name} are absent (set DECISIVE_DATA)")
    world: World = open_world(name)
    assert {"train", "val_unseen"} <= set(world.splits)
    for split in ("val_seen", "val_unseen"):
        told = world.instructions(split)
        assert len({one.instr_id for one in told}) == len(told) > 50
        for one in told[:: len(told) // 4]:
            graph = world.graph(one.scan)
            check_path(graph, one)
            views = world.symbolic_views(one.scan)
            assert views.shape == (len(graph), 36, 41)
            assert views.dtype == np.uint8
            assert views.max() == 1
            assert not views[..., 0].any()
    unseen = {one.scan for one in world.instructions("val_unseen")}
    assert unseen.isdisjoint({one.scan for one in world.instructions("train")})
    with pytest.raises(ValueError, match="unknown split 'x'; known: train"):
        world.instructions("x")
    with pytest.raises(ValueError, match="unknown scan 'x'"):
        world.graph("x")


def test_sketches_are_connected_and_repeat_themselves() -> None:
    first, second = SketchWorld(), SketchWorld()
    told = first.instructions("train")
    assert told == second.instructions("train")
    for scan in {one.scan for one in told}:
        graph: NavigationGraph = first.graph(scan)
        assert np.isfinite(graph.distances).all()
        assert len(graph) == 20
    seen = {one.path for one in first.instructions("val_seen")}
    assert seen.isdisjoint({one.path for one in told})
    lengths = [first.graph(one.scan).length(one.path) for one in told]
    assert min(lengths) >= 5.0
    assert {len(one.path) for one in told} <= {5, 6, 7}
    for scan in ("sketch_train_99", "sketch_train_x", "sketch__00", "sketch_train_0"):
        with pytest.raises(ValueError, match="unknown scan"):
            first.graph(scan)
    with pytest.raises(ValueError, match="no pixels"):
        first.simulator(told[0].scan)


def test_sketch_instructions_name_what_is_seen_at_the_goal() -> None:
    world = SketchWorld()
    for one in world.instructions("val_unseen"):
        last = one.text.removesuffix(", and stop there.").split(" to the ")[-1]
        goal = world.graph(one.scan).index(one.path[-1])
        seen = world.symbolic_views(one.scan)[goal].any(axis=0)
        assert seen[ID[last.replace(" ", "_")]], one


@pytest.mark.slow
def test_splits_of_houses_share_no_path_and_unseen_ones_no_house() -> None:
    world = open_world("houses")
    train, seen, unseen = (
        world.instructions(split) for split in ("train", "val_seen", "val_unseen")
    )
    assert {one.path for one in train}.isdisjoint({one.path for one in seen})
    assert {one.scan for one in train} == {one.scan for one in seen}
    assert {one.scan for one in train}.isdisjoint({one.scan for one in unseen})
    for told in (train, seen, unseen):
        assert (
            len({one.instr_id for one in told}) == len(told) == 3 * len({o.path_id for o in told})
        )
        assert len({one.heading for one in told}) == len(told) / 3


def test_houses_have_pixels_and_are_known_by_name() -> None:
    world = open_world("houses")
    assert world.graph("house_test_000007_p050").scan == "house_test_000007_p050"
    for name in ("house_test_7", "house_dev_000007", "house_test_000007_p500x"):
        with pytest.raises(ValueError, match="unknown scan"):
            world.graph(name)


def test_the_layout_of_matterport3dsimulator_is_read_too(tmp_path: Path) -> None:
    write(tmp_path / "connectivity" / "case_connectivity.json", street().connectivity())
    write(tmp_path / "tasks" / "R2R" / "data" / "R2R_train.json", [entry()])
    world = MatterportWorld(tmp_path)
    assert len(world.instructions("train")) == 3
    assert world.graph("case").viewpoints == street().viewpoints
    with pytest.raises(ValueError, match="unknown scan 'other'"):
        world.graph("other")
    with pytest.raises(FileNotFoundError, match="holds none of r2r/R2R_test"):
        world.instructions("test")
    with pytest.raises(FileNotFoundError, match="reverie"):
        world.symbolic_views("case")
    with pytest.raises((FileNotFoundError, ValueError), match=r"habitat\.md"):
        world.simulator("case")


@pytest.mark.parametrize("content", ["[", "[]", '{"case": [{}]}', '{"case": 3}'])
def test_malformed_connectivity_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mp3d_connectivity" / "connectivity_90scans.json.gz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(content.encode()))
    with pytest.raises(ValueError, match=r"JSON|object|connectivity list") as error:
        MatterportWorld(tmp_path).graph("case")
    assert "\n" not in str(error.value)


def test_where_data_are_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DECISIVE_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    monkeypatch.delenv("DECISIVE_DATA")
    assert data_folder().parts[-2:] == ("shared", "data")
    monkeypatch.setenv("DECISIVE_DATA", str(tmp_path))
    assert open_world("r2r") is open_world("r2r", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"DECISIVE_DATA.*'sketch'"):
        MatterportWorld(tmp_path).instructions("train")


def test_unknown_worlds_are_told_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown world 'mars'; known: sketch, houses, r2r"):
        open_world("mars")
    assert open_world("sketch") is open_world("sketch")


@needs_data
@pytest.mark.data
def test_the_real_splits_have_their_published_size() -> None:
    world = MatterportWorld(DATA)
    counts = {}
    for split in world.splits:
        told = world.instructions(split)
        assert all(one.has_goal == (split != "test") for one in told)
        scans = {one.scan for one in told}
        counts[split] = (len({one.path_id for one in told}), len(told), len(scans))
    assert counts == {
        "train": (4675, 14039, 61),
        "val_seen": (340, 1021, 56),
        "val_unseen": (783, 2349, 11),
        "test": (1391, 4173, 18),
    }


@needs_data
@pytest.mark.data
def test_the_splits_of_reverie_are_read_whole() -> None:
    world = ReverieWorld(DATA)
    counts = {}
    for split in world.splits:
        told = world.instructions(split)
        assert all(one.has_goal == (split != "test") for one in told)
        counts[split] = (len(told), len({one.scan for one in told}))
    assert counts == {
        "train": (10290, 60),
        "val_seen": (1384, 46),
        "val_unseen": (3433, 10),
        "test": (6144, 16),
    }


def test_a_path_of_reverie_may_lead_to_several_objects(tmp_path: Path) -> None:
    entries = [entry(id="7_3", objId=3), entry(id="7_4", objId=4, instructions=["Dust it."])]
    found = read_instructions(write(tmp_path / "t.json", entries))
    assert [one.instr_id for one in found] == ["7_3_0", "7_3_1", "7_3_2", "7_4_0"]
    assert {one.path_id for one in found} == {"7"}
    secret = {key: value for key, value in entries[0].items() if key not in ("path_id", "distance")}
    told = read_instructions(write(tmp_path / "t.json", [{**secret, "path": ["a"]}]))[0]
    assert (told.instr_id, told.path_id, told.has_goal) == ("7_3_0", "7_3", False)
    with pytest.raises(ValueError, match="entry 1: path_id 7_3 comes twice"):
        read_instructions(write(tmp_path / "t.json", [entries[0], entries[0]]))
    with pytest.raises(
        ValueError, match=r"entry 0: scan, path_id and id must be names, got .* True"
    ):
        read_instructions(write(tmp_path / "t.json", [entry(id=True)]))


@needs_data
@pytest.mark.data
def test_real_paths_are_as_long_as_the_annotations_say() -> None:
    world = MatterportWorld(DATA)
    entries = read_json(DATA / "r2r" / "R2R_val_unseen.json.gz")
    stated = {str(item["path_id"]): item["distance"] for item in entries}
    wrong = 0
    for one in world.instructions("val_unseen"):
        graph = world.graph(one.scan)
        check_path(graph, one)
        wrong += abs(graph.distance(one.path[0], one.path[-1]) - stated[one.path_id]) > 0.02
    assert wrong == 24  # three instructions each of eight paths: a property of the data


@needs_data
@pytest.mark.data
def test_chinese_instructions_are_read() -> None:
    path = DATA / "xl_r2r" / "R2R_val_unseen_zh.json.gz"
    if not path.exists():
        pytest.skip("XL-R2R is absent (set DECISIVE_DATA)")
    told = read_instructions(path)
    assert len(told) == 2348  # one of 2,349 is blank
    assert max(len(one.text) for one in told) < 1000
