"""Data sets as bags, and bags as data sets, without ROS."""

import json
import math
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("rosbags")

from rosbags.rosbag2 import Reader, StoragePlugin, Writer, storage_mcap
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode
from rosbags.typesys import Stores, get_typestore

from decisive.recording import RecordConfig, record
from learning.demonstrations import Demonstrations, load_demonstrations
from learning.npz_format import to_arrays
from robots.episode_layout import PairingConfig
from robots.matching import REFERENCE, Feature
from ros_nodes import bag_files, bag_messages
from ros_nodes.bag_files import BagWriter, new_bag, open_bag
from ros_nodes.bag_import import ImportConfig
from ros_nodes.bag_poses import direction_angle
from ros_nodes.rosbag import export_bag, import_bag

ROOT = Path(__file__).resolve().parents[1]
SECOND = 1_000_000_000
INSERTION = "decisive/BlockInsertion-v0"
LINES = ["cup_xy = pose:cup xy"]
PLAIN = ImportConfig(fields=["cup_xy 2 point m"], features=LINES)


@pytest.fixture(scope="module")
def insertion(tmp_path_factory: pytest.TempPathFactory) -> Demonstrations:
    folder = tmp_path_factory.mktemp("insertion") / "staging"
    return record(RecordConfig(INSERTION, episodes=3, noise=0.001), folder)


def small(**changes: Any) -> Demonstrations:
    """Three rows of two episodes, by hand."""
    rng = np.random.default_rng(0)
    found = Demonstrations(
        observations={"state": rng.normal(size=(3, 2)).astype(np.float32)},
        actions=rng.uniform(-0.03, 0.03, (3, 2)).astype(np.float32),
        rewards=rng.normal(size=3).astype(np.float32),
        episode_offsets=np.array([0, 2, 3]),
        action_low=np.full(2, -0.03, np.float32),
        action_high=np.array([0.03, np.inf], np.float32),
        meta={"observation_fields": [{"name": "cup_xy", "size": 2, "kind": "point"}]},
    )
    return replace(found, **changes)


def check_equal(one: Demonstrations, other: Demonstrations) -> None:
    mine, theirs = to_arrays(one), to_arrays(other)
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert theirs[name].dtype == value.dtype, name
        np.testing.assert_array_equal(theirs[name], value, err_msg=name)
    assert one.terminated is None or other.terminated is not None
    assert (one.final_observations is None) == (other.final_observations is None)


# There and back.


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_recorded_data_set_comes_back_equal(insertion, tmp_path, storage) -> None:
    place = export_bag(insertion, tmp_path / "bag", storage)
    check_equal(insertion, import_bag(place))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"terminated": np.array([True, False])},
        {"final_observations": {"state": np.ones((2, 2), np.float32)}},
        {"meta": {**small().meta, "rate": 3.0, "env": "lab", "note": "é"}},
    ],
)
def test_what_a_data_set_does_not_tell_stays_untold(tmp_path, changes) -> None:
    demos = small(**changes)
    check_equal(demos, import_bag(export_bag(demos, tmp_path / "bag", features=LINES)))


def test_pictures_come_back_bit_by_bit(tmp_path) -> None:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (3, 5, 7, 3), np.uint8)
    both = small(observations={**small().observations, "pixels": pixels})
    check_equal(both, import_bag(export_bag(both, tmp_path / "both")))
    alone = small(observations={"pixels": pixels}, meta={})
    check_equal(alone, import_bag(export_bag(alone, tmp_path / "alone", "sqlite3")))


def test_joints_come_back_with_their_names(tmp_path) -> None:
    fields = [
        {"name": "arm", "size": 1, "kind": "scalar"},
        {"name": "hand", "size": 1, "kind": "scalar"},
    ]
    lines = ["arm = joints:joint_states elbow", "hand = joints:joint_states wrist"]
    demos = small(meta={"observation_fields": fields})
    place = export_bag(demos, tmp_path / "bag", features=lines)
    check_equal(demos, import_bag(place))
    (message,) = messages_of(place, "/joint_states")[:1]
    assert message.name == ["elbow", "wrist"]


def messages_of(place: Path, topic: str) -> list[Any]:
    store = get_typestore(Stores.ROS2_JAZZY)
    with Reader(place) as reader:
        return [
            store.deserialize_cdr(data, connection.msgtype)
            for connection, _, data in reader.messages()
            if connection.topic == topic
        ]


def test_an_exported_bag_is_what_the_readers_of_rosbags_expect(insertion, tmp_path) -> None:
    place = export_bag(insertion.episodes(1), tmp_path / "bag")
    store = get_typestore(Stores.ROS2_JAZZY)
    with Reader(place) as reader:
        kinds = {connection.topic: connection.msgtype for connection in reader.connections}
        for connection in reader.connections:
            assert connection.digest == store.hash_rihs01(connection.msgtype)
        times = [time for _, time, _ in reader.messages()]
        assert reader.duration == len(insertion.episodes(1)) * SECOND // 10 + 1
    assert kinds["/tool_pose"] == kinds["/objects/block"] == "geometry_msgs/msg/PoseStamped"
    assert kinds["/robot/command"] == "geometry_msgs/msg/TwistStamped"
    assert times == sorted(times)
    poses = messages_of(place, "/objects/block")
    assert len(poses) == len(insertion.episodes(1)) + 1
    assert poses[1].header.stamp.sec * SECOND + poses[1].header.stamp.nanosec == 11 * SECOND // 10
    assert poses[0].header.frame_id == "base_link"
    events = [json.loads(message.data) for message in messages_of(place, "/episode")]
    assert [event["event"] for event in events] == ["start", "end"]


@pytest.mark.ros
def test_ros_itself_reads_the_messages_of_an_exported_bag(tmp_path) -> None:
    pytest.importorskip("rclpy")
    import importlib

    from rclpy.serialization import deserialize_message

    pixels = np.arange(3 * 2 * 4 * 3, dtype=np.uint8).reshape(3, 2, 4, 3)
    fields = [*small().meta["observation_fields"], {"name": "arm", "size": 2, "kind": "scalar"}]
    state = np.hstack([small().observations["state"]] * 2)
    demos = small(
        observations={"state": state, "pixels": pixels}, meta={"observation_fields": fields}
    )
    lines = [*LINES, "arm = joints:joint_states a,b", "pixels = image:camera"]
    place = export_bag(demos, tmp_path / "bag", features=lines)
    read = {}
    with Reader(place) as reader:
        for connection, _, data in reader.messages():
            package, _, name = connection.msgtype.split("/")
            kind = getattr(importlib.import_module(f"{package}.msg"), name)
            read.setdefault(connection.topic, deserialize_message(bytes(data), kind))
    assert read.keys() == {
        "/cup",
        "/joint_states",
        "/camera",
        "/robot/command",
        "/episode",
        "/reward",
    }
    assert read["/cup"].pose.position.x == float(state[0, 0])
    assert list(read["/joint_states"].position) == state[0, 2:].tolist()
    assert bytes(read["/camera"].data) == pixels[0].tobytes()
    assert read["/camera"].encoding == "rgb8"
    assert read["/robot/command"].twist.linear.y == float(demos.actions[0, 1]) * 10
    assert read["/reward"].data == demos.rewards[0]


angles = st.floats(-math.pi, math.pi)


@given(angles)
def test_an_angle_is_found_whose_cosine_and_sine_round_to_the_pair(angle: float) -> None:
    pair = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    found = direction_angle(*pair)
    assert (np.float32(math.cos(found)), np.float32(math.sin(found))) == pair
    assert math.cos(found - angle) > 1 - 1e-12


def test_many_directions_come_back_through_quaternions_bit_by_bit() -> None:
    from robots.matching import pose_part

    rng = np.random.default_rng(2)
    wrong = 0
    for angle in rng.uniform(-np.pi, np.pi, 20_000):
        for part, times in (("heading", 1), ("yaw4", 4)):
            pair = np.array([math.cos(times * angle), math.sin(times * angle)], np.float32)
            yaw = direction_angle(*pair) / times
            message = bag_messages.pose(0, [0.0, 0.0, 0.0], yaw)
            again = np.array(pose_part(part, *bag_messages.pose_arrays(message)), np.float32)
            wrong += (again != pair).any()
    assert wrong == 0


def test_observations_with_noise_are_refused_rather_than_changed(tmp_path) -> None:
    fields = [{"name": "cup_yaw4", "size": 2, "kind": "yaw4"}]
    demos = small(meta={"observation_fields": fields})
    with pytest.raises(ValueError, match="is no yaw4 of a pose: noise"):
        export_bag(demos, tmp_path / "bag", features=["cup_yaw4 = pose:cup yaw4"])
    assert not (tmp_path / "bag").exists()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("demos", "said"),
    [
        (small(meta={}), "do not name the fields"),
        (small(meta={"observation_fields": [{"name": "qpos", "size": 2, "kind": "scalar"}]}),
         "no topic is known"),
        (small(meta={**small().meta, "rate": 0}), "its rate is 0"),
        (small(meta={"observation_fields": [{"name": "cup_xy", "size": 3, "kind": "position"}]}),
         "holds 3 numbers"),
        (small(actions=np.zeros((3, 7), np.float32), action_low=np.full(7, -1, np.float32),
               action_high=np.ones(7, np.float32)), "holds 6 numbers"),
    ],
)  # fmt: skip
def test_data_that_no_message_can_hold_are_refused(tmp_path, demos, said) -> None:
    with pytest.raises(ValueError, match=said):
        export_bag(demos, tmp_path / "bag", features=())


def test_a_bag_is_replaced_only_on_demand(tmp_path) -> None:
    place = export_bag(small(), tmp_path / "bag")
    with pytest.raises(ValueError, match="exists"):
        export_bag(small(), place)
    other = small(rewards=np.zeros(3, np.float32))
    check_equal(other, import_bag(export_bag(other, place, "sqlite3", overwrite=True)))
    assert sorted(path.name for path in place.iterdir()) == ["bag.db3", "metadata.yaml"]
    with pytest.raises(ValueError, match="storage must be"):
        export_bag(small(), tmp_path / "other", "bz2")


def test_it_works_where_no_ros_is_installed(tmp_path) -> None:
    place = export_bag(small(), tmp_path / "bag")
    code = (
        "import sys\n"
        "for name in ('rclpy', 'rosidl_runtime_py', 'std_msgs', 'geometry_msgs', 'sensor_msgs',\n"
        "             'builtin_interfaces'):\n"
        "    sys.modules[name] = None\n"
        "from ros_nodes.rosbag import import_bag\n"
        f"print(len(import_bag({str(place)!r})))"
    )
    done = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    assert done.split()[-1] == "3"


# Bags that were recorded.


def real_time(
    target: BagWriter,
    first: int,
    seconds: float,
    speed: float,
    offset: int = 0,
    names: tuple[str, str] = ("/cup", "/robot/command"),
) -> None:
    """A cup seen 50 times a second, and commands; the recording's clock is ahead by `offset`."""
    for i in range(round(seconds * 50) + 1):
        stamp = first + i * SECOND // 50
        position = [0.3 + speed * i / 50, 0.1, 0.0]
        target.write(names[0], stamp + offset, bag_messages.pose(stamp, position, 0.0))
        target.write(names[1], stamp + offset, bag_messages.twist(stamp, [speed, 0, 0, 0, 0, 0]))


@pytest.mark.parametrize("offset", [0, 10**6 * SECOND])
def test_a_bag_without_episodes_is_one_and_clocks_may_differ(tmp_path, offset) -> None:
    with new_bag(tmp_path / "bag", "mcap", {}) as target:
        real_time(target, 5 * SECOND, 2.0, 0.1, offset)
    for place in (tmp_path / "bag", tmp_path / "bag" / "bag.mcap"):
        demos = import_bag(place, PLAIN)
        assert demos.n_episodes == 1
        np.testing.assert_allclose(demos.actions, [[0.01, 0.0]] * 20, atol=1e-8)
        np.testing.assert_allclose(
            demos.observations["state"][:, 0], 0.3 + 0.01 * np.arange(20), atol=1e-6
        )
        assert demos.rewards.tolist() == [0] * 19 + [1]
        assert demos.meta["expert"] == "teleoperation"
        assert demos.meta["topics"] == {"cup_xy": "pose:cup xy"}


def test_episodes_of_a_recorded_bag_are_cut_where_it_says(tmp_path) -> None:
    with new_bag(tmp_path / "bag", "sqlite3", {}) as target:
        for index, (speed, success) in enumerate([(0.1, True), (0.2, False), (-0.1, True)]):
            first = (10 + 5 * index) * SECOND
            start, end = {"event": "start"}, {"event": "end", "success": success}
            target.write("/episode", first, bag_messages.text(json.dumps(start)))
            real_time(target, first, 1.0, speed)
            last = first + 1_040_000_000
            target.write("/episode", last, bag_messages.text(json.dumps(end)))
    demos = import_bag(tmp_path / "bag", PLAIN)
    assert demos.n_episodes == 2
    assert demos.meta["failed_episodes"] == 1
    for index, speed in enumerate([0.1, -0.1]):
        actions = demos.actions[demos.episode(index)]
        assert 8 <= len(actions) <= 10
        np.testing.assert_allclose(actions[:, 0], speed / 10, atol=1e-8)
    everything = import_bag(tmp_path / "bag", replace(PLAIN, keep_failures=True))
    assert everything.n_episodes == 3
    assert everything.terminated.tolist() == [True, False, True]


def test_a_namespace_and_the_environment_are_taken_into_account(tmp_path) -> None:
    with new_bag(tmp_path / "bag", "mcap", {}) as target:
        for i in range(51):
            stamp = SECOND + i * SECOND // 50
            for name in ("tool_pose", "objects/block", "objects/zone"):
                pose = bag_messages.pose(stamp, [0.3, 0.1, 0.0], 0.4)
                target.write(f"/left/{name}", stamp, pose)
            target.write("/left/robot/command", stamp, bag_messages.twist(stamp, [0.1] * 6))
    config = ImportConfig(env="decisive/BlockPush-v0", namespace="left")
    demos = import_bag(tmp_path / "bag", config)
    assert demos.meta["env"] == "decisive/BlockPush-v0"
    state = demos.observations["state"]
    np.testing.assert_allclose(state[0, :2], [0.3, 0.1], atol=1e-7)
    np.testing.assert_allclose(state[1, :2], [0.31, 0.11], atol=1e-7)  # the commanded position
    np.testing.assert_allclose(state[0, 6:8], [math.cos(1.6), math.sin(1.6)], atol=1e-6)


def test_position_commands_become_displacements(tmp_path) -> None:
    store = bag_messages.store()
    layout = store.types["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
    with new_bag(tmp_path / "bag", "mcap", {}) as target:
        for i in range(51):
            stamp = SECOND + i * SECOND // 50
            target.write("/cup", stamp, bag_messages.pose(stamp, [0.0, 0.0, 0.0], 0.0))
            values = np.array([0.3 + 0.001 * i, 0.2, 0.0])
            array = store.types[bag_messages.TYPES["positions"]](layout=layout, data=values)
            target.write("/robot/command", stamp, array)
    demos = import_bag(tmp_path / "bag", replace(PLAIN, command="positions"))
    np.testing.assert_allclose(demos.actions, [[0.005, 0.0]] * len(demos), atol=1e-8)


def test_a_graph_in_lockstep_is_paired_by_its_stamps(tmp_path) -> None:
    pairing = PairingConfig((Feature("", REFERENCE),), lockstep=True)
    with new_bag(tmp_path / "bag", "mcap", {}) as target:
        wall = 10**9 * SECOND
        for i in range(5):
            stamp = (7 + i) * SECOND // 10
            target.write("/cup", wall + i, bag_messages.pose(stamp, [i, 0.0, 0.0], 0.0))
            if i < 4:
                twist = bag_messages.twist(stamp, [0.1 + 0.01 * i, 0, 0, 0, 0, 0])
                target.write("/robot/command", wall + i, twist)
    demos = import_bag(tmp_path / "bag", replace(PLAIN, pairing=pairing))
    assert demos.observations["state"][:, 0].tolist() == [0, 1, 2, 3]
    expected = (np.array([0.1, 0.11, 0.12, 0.13]) * 0.1).astype(np.float32)
    np.testing.assert_allclose(demos.actions[:, 0], expected, rtol=1e-7)


# Bags that are not what they should be.


@contextmanager
def refused(*said: str) -> Iterator[None]:
    with pytest.raises(ValueError, match=r"(?s).*") as caught:
        yield
    text = str(caught.value)
    assert "\n" not in text
    assert all(word in text for word in said), text


def test_a_missing_topic_or_one_of_another_type_is_named(tmp_path) -> None:
    with new_bag(tmp_path / "bag", "mcap", {}) as target:
        real_time(target, SECOND, 1.0, 0.1, names=("/cup", "/command"))
    with refused("lacks /robot/command", "it holds /command, /cup"):
        import_bag(tmp_path / "bag", PLAIN)
    with new_bag(tmp_path / "other", "mcap", {}) as target:
        real_time(target, SECOND, 1.0, 0.1, names=("/robot/command", "/cup"))
    with refused("/cup must be geometry_msgs/msg/PoseStamped"):
        import_bag(tmp_path / "other", PLAIN)
    with refused("whose data shall it be"):
        import_bag(tmp_path / "bag")
    with pytest.raises(OSError, match="no bag"):
        import_bag(tmp_path / "none", PLAIN)


def test_a_bag_without_a_usable_episode_says_why(tmp_path) -> None:
    with new_bag(tmp_path / "bag", "mcap", {}) as target:
        real_time(target, SECOND, 1.0, 0.1)
        real_time(target, 3 * SECOND, 1.0, 0.1)
    with refused("no episode", "no observation for"):
        import_bag(tmp_path / "bag", PLAIN)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (bag_messages.pose(SECOND, [math.nan, 0, 0], 0.0), "finite"),
        (bag_messages.pose(-SECOND, [0, 0, 0], 0.0), "stamp"),
        (bag_messages.twist(SECOND, [math.inf] * 6), "finite"),
    ],
)
def test_messages_that_say_nothing_are_refused(tmp_path, message, said) -> None:
    topic = "/cup" if message.__msgtype__.endswith("PoseStamped") else "/robot/command"
    with new_bag(tmp_path / "bag", "mcap", {}) as target:
        real_time(target, SECOND, 0.5, 0.1)
        target.write(topic, 2 * SECOND, message)
    with refused(said):
        import_bag(tmp_path / "bag", PLAIN)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_whatever_is_cut_or_changed_ends_in_one_line_or_in_data(tmp_path, storage) -> None:
    place = export_bag(small(), tmp_path / "bag", storage)
    (file,) = [path for path in place.iterdir() if path.suffix != ".yaml"]
    content = file.read_bytes()
    rng = np.random.default_rng(3)
    outcomes = set()
    for i in range(120):
        data = bytearray(content)
        if i % 3 == 0:
            data = data[: rng.integers(len(data))]
        else:
            for place_of in rng.integers(len(data), size=1 + i % 20):
                data[place_of] = rng.integers(256)
        file.write_bytes(data)
        try:
            outcomes.add(f"{len(import_bag(place))} rows")
        except ValueError as error:
            outcomes.add(f"refused in {len(str(error).splitlines())} line")
    assert "refused in 1 line" in outcomes
    assert outcomes <= {"refused in 1 line", "1 rows", "2 rows", "3 rows"}


@pytest.mark.parametrize(
    "content", ["", "nonsense", "a: [1, 2", "rosbag2_bagfile_information: 3", "- &a [*a]"]
)
def test_metadata_that_say_nothing_are_refused(tmp_path, content) -> None:
    place = export_bag(small(), tmp_path / "bag")
    (place / "metadata.yaml").write_text(content)
    with refused(str(place)):
        import_bag(place)


@pytest.mark.parametrize(
    "told",
    ["[]", "{", '{"meta": {}}', '{"meta": {}, "features": ["x"], "rate": 10}',
     '{"meta": {}, "features": [], "action_low": [], "action_high": [], "rate": 10}',
     '{"meta": {"env": 3}, "features": ["cup_xy = pose:cup xy"], "action_low": [-1, -1], '
     '"action_high": [1, 1], "rate": 10}'],
)  # fmt: skip
def test_what_a_bag_says_of_itself_is_not_trusted(tmp_path, told) -> None:
    with new_bag(tmp_path / "bag", "mcap", {"decisive": told}) as target:
        real_time(target, SECOND, 1.0, 0.1)
    with refused(str(tmp_path)):
        import_bag(tmp_path / "bag")


def compressed(folder: Path, mode: CompressionMode) -> Path:
    writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        real_time(BagWriter(writer), SECOND, 1.0, 0.1)
    return folder


def test_compressed_chunks_are_read_and_wholly_compressed_bags_refused(tmp_path) -> None:
    assert len(import_bag(compressed(tmp_path / "chunks", CompressionMode.STORAGE), PLAIN)) == 10
    for mode in (CompressionMode.FILE, CompressionMode.MESSAGE):
        with refused("ros2 bag convert"):
            import_bag(compressed(tmp_path / mode.name, mode), PLAIN)


@pytest.mark.parametrize("claim", [100, 2**40])
def test_a_chunk_that_unpacks_to_more_than_it_claims_is_refused(
    tmp_path, claim, monkeypatch
) -> None:
    # 64 MiB of nothing as 6 KiB; the reader would unpack it all before it compares.
    bomb = storage_mcap.zstd.compress(bytes(2**26))
    before = dict(storage_mcap.DECOMPRESSORS)
    with bag_files._bounded_decompression():
        inflate = storage_mcap.DECOMPRESSORS["zstd"]
        if claim > 2**30:
            with pytest.raises(ValueError, match="claims"):
                inflate(bomb, claim)
        else:
            assert len(inflate(bomb, claim)) == claim + 1  # not equal, which the reader refuses
    assert before == storage_mcap.DECOMPRESSORS
    place = compressed(tmp_path / "bag", CompressionMode.STORAGE)
    file = place / "bag.mcap"
    content = file.read_bytes()
    at = content.index(b"\x04\x00\x00\x00zstd") - 12  # size and checksum stand before the name
    (size,) = struct.unpack_from("<Q", content, at)
    assert size < 2**20
    changed = content.replace(struct.pack("<Q", size), struct.pack("<Q", claim))
    file.write_bytes(changed)
    with refused(str(place)):
        import_bag(place, PLAIN)


def test_definitions_in_a_bag_never_become_code(tmp_path) -> None:
    place = tmp_path / "bag"
    with Writer(place, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection(
            "/cup", "geometry_msgs/msg/PoseStamped", msgdef="int32 x\nstring __import__", rihs01="0"
        )
        writer.write(connection, SECOND, b"\x00\x01\x00\x00\x00\x00\x00\x00")
        target = BagWriter(writer)
        target.write("/robot/command", SECOND, bag_messages.twist(SECOND, [0.1] * 6))
    with refused("damaged"):
        import_bag(place, PLAIN)
    store = bag_messages.store()
    fields = [name for name, _ in store.fielddefs["geometry_msgs/msg/PoseStamped"][1]]
    assert fields == ["header", "pose"]


def test_messages_of_unknown_types_are_never_touched(tmp_path) -> None:
    place = tmp_path / "bag"
    with Writer(place, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        strange = writer.add_connection("/strange", "a/msg/B", msgdef="int32 x", rihs01="0")
        writer.write(strange, SECOND, b"anything")
        real_time(BagWriter(writer), SECOND, 1.0, 0.1)
    assert len(import_bag(place, PLAIN)) == 10


def test_pictures_that_do_not_fit_their_bytes_are_refused() -> None:
    message = bag_messages.image(0, np.zeros((4, 5, 3), np.uint8))
    for name, value in (("height", 400), ("step", 3), ("width", 0), ("encoding", "yuv422")):
        broken = replace(message, **{name: value})
        with pytest.raises(ValueError, match="picture"):
            bag_messages.image_array(broken)
    padded = np.arange(4 * 20, dtype=np.uint8)
    rows = bag_messages.image_array(replace(message, step=20, data=padded, encoding="bgr8"))
    assert rows[1, 0].tolist() == [22, 21, 20]


def test_an_episode_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("ros_nodes.bag_import.MAX_BYTES", 2000)
    with new_bag(tmp_path / "bag", "mcap", {}) as target:
        real_time(target, SECOND, 5.0, 0.1)
    with refused("more than 2000 bytes"):
        import_bag(tmp_path / "bag", PLAIN)


def test_a_bag_alone_in_its_file_needs_no_metadata(insertion, tmp_path) -> None:
    place = export_bag(insertion.episodes(2), tmp_path / "bag", "sqlite3")
    shutil.move(place / "bag.db3", tmp_path / "alone.db3")
    demos = import_bag(
        tmp_path / "alone.db3",
        ImportConfig(
            env=INSERTION, pairing=PairingConfig((Feature("", REFERENCE),), lockstep=True)
        ),
    )
    np.testing.assert_array_equal(demos.actions, insertion.episodes(2).actions)
    state, expected = demos.observations["state"], insertion.episodes(2).observations["state"]
    # The expert was disturbed on its way, so its reference was another than that of its labels.
    np.testing.assert_array_equal(state[:, 2:], expected[:, 2:])


def test_npz_and_bag_are_two_ways_to_say_the_same(insertion, tmp_path) -> None:
    from learning.npz_format import write_npz

    write_npz(import_bag(export_bag(insertion, tmp_path / "bag")), tmp_path / "again.npz")
    check_equal(insertion, load_demonstrations(tmp_path / "again.npz"))


def test_the_topics_of_a_bag_are_listed(tmp_path) -> None:
    with open_bag(export_bag(small(), tmp_path / "bag", features=LINES)) as reader:
        assert set(reader.types) == {"/cup", "/robot/command", "/reward", "/episode"}


# The verb.


def test_the_verb_exports_and_imports(insertion, tmp_path, capsys) -> None:
    from learning.npz_format import write_npz
    from ros_nodes import bag_cli

    write_npz(insertion, tmp_path / "data.npz")
    bag, again = str(tmp_path / "bag"), str(tmp_path / "again.npz")
    words = [str(tmp_path / "data.npz"), bag, "--storage", "sqlite3", "--episodes", "2"]
    assert bag_cli.main(["export", *words]) == 0
    assert capsys.readouterr().out.strip() == bag
    assert bag_cli.main(["import", bag, again, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == 2
    check_equal(insertion.episodes(2), load_demonstrations(again))
    with pytest.raises(ValueError, match="exists"):
        bag_cli.main(["import", bag, again])


def test_the_verb_reads_a_recorded_bag_by_its_options(tmp_path, capsys) -> None:
    from ros_nodes import bag_cli

    with new_bag(tmp_path / "bag", "mcap", {}) as target:
        real_time(target, SECOND, 2.0, 0.1)
    out = str(tmp_path / "cup.npz")
    words = ["--field", "cup_xy 2 point m", "--feature", LINES[0], "--license", "CC0-1.0"]
    assert bag_cli.main(["import", str(tmp_path / "bag"), out, *words, "--rate", "5"]) == 0
    assert "1 episodes, 10 actions" in capsys.readouterr().out
    demos = load_demonstrations(out)
    np.testing.assert_allclose(demos.actions[:, 0], 0.02, atol=1e-8)
    assert (demos.meta["license"], demos.meta["rate"]) == ("CC0-1.0", 5.0)


@pytest.mark.parametrize("words", [["play"], ["import", "a", "b.npz", "--set", "slots=2"]])
def test_the_verb_refuses_what_makes_no_sense(words, tmp_path, monkeypatch) -> None:
    from ros_nodes import bag_cli

    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"needs one of|--set needs"):
        bag_cli.main(words)
    assert bag_cli.main([]) == 0
