"""Topics and services of every node: the documentation and the SROS2 policy are made from this.

Written by hand; a test starts the nodes and compares. Importable without rclpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Way = Literal["publishes", "subscribes", "serves"]

POSE = "geometry_msgs/msg/PoseStamped"
JOINTS = "sensor_msgs/msg/JointState"
IMAGE = "sensor_msgs/msg/Image"
INFO = "sensor_msgs/msg/CameraInfo"
TEXT = "std_msgs/msg/String"
TRIGGER = "std_srvs/srv/Trigger"
SWITCH = "std_srvs/srv/SetBool"
DIAGNOSTICS = "diagnostic_msgs/msg/DiagnosticArray"
PATH = "nav_msgs/msg/Path"
DETECTIONS = "vision_msgs/msg/Detection2DArray"
GRID = "nav_msgs/msg/OccupancyGrid"
COMMANDS = (
    "geometry_msgs/msg/TwistStamped",
    "trajectory_msgs/msg/JointTrajectory",
    "std_msgs/msg/Float64MultiArray",
)


@dataclass(frozen=True)
class Interface:
    """One topic or service of a node.

    Attributes:
        way: what the node does with it.
        name: as the node knows it; `NAME` stands for any one name, `~` for the node's own.
        types: of its messages; of several, a parameter chooses one.
        doc: one line for people.
    """

    way: Way
    name: str
    types: tuple[str, ...]
    doc: str


def _out(name: str, types: str | tuple[str, ...], doc: str) -> Interface:
    return Interface("publishes", name, (types,) if isinstance(types, str) else types, doc)


def _in(name: str, types: str | tuple[str, ...], doc: str) -> Interface:
    return Interface("subscribes", name, (types,) if isinstance(types, str) else types, doc)


def _panorama(way: Way, topic: str, doc: str) -> tuple[Interface, ...]:
    kinds = {
        "color/image_raw": (IMAGE, "rgb8"),
        "depth/image_raw": (IMAGE, "32FC1 in m along the ray"),
        "semantic/image_raw": (IMAGE, "mono8, ids of mpcat40"),
        "pose": (POSE, "of the camera, level"),
    }
    return tuple(
        Interface(way, f"{topic}/{end}", (kind,), f"{doc}: {words}")
        for end, (kind, words) in kinds.items()
    )


def _service(name: str, kind: str, doc: str) -> Interface:
    return Interface("serves", name, (kind,), doc)


_LIFECYCLE = (
    _out("~/transition_event", "lifecycle_msgs/msg/TransitionEvent", "of the lifecycle"),
    _service("~/change_state", "lifecycle_msgs/srv/ChangeState", "of the lifecycle"),
    _service("~/get_state", "lifecycle_msgs/srv/GetState", "of the lifecycle"),
    _service("~/get_available_states", "lifecycle_msgs/srv/GetAvailableStates", "of the lifecycle"),
    _service(
        "~/get_available_transitions",
        "lifecycle_msgs/srv/GetAvailableTransitions",
        "of the lifecycle",
    ),
    _service(
        "~/get_transition_graph", "lifecycle_msgs/srv/GetAvailableTransitions", "of the lifecycle"
    ),
)

INTERFACES: dict[str, tuple[Interface, ...]] = {
    "sim_robot": (
        _in("robot/command", COMMANDS, "what the robot does; as `command` says"),
        _out("tool_pose", POSE, "tip of the tool"),
        _out("joint_states", JOINTS, "positions and velocities of the joints; of any environment, "
             "the last action"),
        _out("observation", JOINTS, "of any environment, named FIELD.0, FIELD.1, ...; in lockstep, "
             "with command trajectory"),
        _out("objects/NAME", POSE, "exact poses, with `objects`: no camera has these"),
        _out("camera/color/image_raw", IMAGE, "rgb8 640x480, with `camera_rate`"),
        _out("camera/depth/image_raw", IMAGE, "32FC1 in m, registered to the colours, likewise"),
        _out("camera/color/camera_info", INFO, "of both pictures"),
        _out("camera/policy/image_raw", IMAGE, "what pixel policies see, with `policy_image`"),
        _out("episode", TEXT, "JSON at every start and end, with the result; latched"),
        _out("/clock", "rosgraph_msgs/msg/Clock", "simulated time, in lockstep"),
        _service("~/reset", TRIGGER, "starts the episode of the parameter `seed`"),
    ),
    "object_poses": (
        _in("camera/color/image_raw", IMAGE, "rgb8 or bgr8"),
        _in("camera/depth/image_raw", IMAGE, "32FC1 in m or 16UC1 in mm, registered"),
        _in("camera/color/camera_info", INFO, "intrinsics of both"),
        _in("perception/labels", IMAGE, "with `masks`: which instance each pixel shows"),
        _in("perception/instances", TEXT, "with `masks`: their classes; of the very same picture"),
        _in("episode", TEXT, "a start forgets where things stand, with `follow_episodes`"),
        _out("objects/NAME", POSE, "on the table, under the stamp of the picture"),
        _service("~/reset", TRIGGER, "forgets where things stand"),
    ),
    "policy": (
        _in("tool_pose", POSE, "tip of the tool"),
        _in("objects/NAME", POSE, "poses that the policy's fields name"),
        _in("joint_states", JOINTS, "where `features` ask for joints, and of an arm with `urdf`"),
        _in("observation", JOINTS, "where actions are sent as they are"),
        _in("camera/policy/image_raw", IMAGE, "where the policy sees pixels"),
        _in("episode", TEXT, "a start resets the policy, with `follow_episodes`"),
        _in("safety_gate/state", TEXT, "once armed, the commanded position begins anew where the "
            "robot is; in real time"),
        _out("policy/command", COMMANDS, "setpoints for the gate; as `command` says"),
        _out("policy/inference", "sensor_msgs/msg/TimeReference",
             "one a decision: newest stamp behind it in the header, oldest as the reference"),
        _out("/diagnostics", DIAGNOSTICS, "decisions, rejected observations, times, and of a "
             "policy that knows them how unsure it is and how often beyond what was shown; 1 Hz"),
        *_LIFECYCLE,
        _service("~/reset", TRIGGER, "the next observation starts an episode"),
    ),
    "safety_gate": (
        _in("policy/command", COMMANDS, "commands that want to reach the robot"),
        _in("policy/inference", "sensor_msgs/msg/TimeReference", "that there was a decision"),
        _in("tool_pose", POSE, "where the robot is, for commands of velocities"),
        _in("joint_states", JOINTS, "where the robot is, for commands of positions"),
        _in("episode", TEXT, "a start tells that a simulator has moved the robot, with "
            "`follow_episodes` and commands of positions"),
        _in("estop", "std_msgs/msg/Bool", "true is the emergency stop; false does nothing"),
        _out("robot/command", COMMANDS, "the only way to the robot"),
        _out("~/state", TEXT, "JSON `state` and `why` at every change; latched"),
        _out("/diagnostics", DIAGNOSTICS, "state and counters; 1 Hz"),
        _service("~/arm", SWITCH, "true arms, false disarms"),
        _service("~/estop", SWITCH, "true is the emergency stop, false releases the latch"),
        _service("~/report", TRIGGER, "the counters as JSON"),
    ),
    "recorder": (
        _in("robot/command", COMMANDS, "what the robot was told"),
        _in("tool_pose", POSE, "tip of the tool"),
        _in("objects/NAME", POSE, "poses that the data set's fields name"),
        _in("joint_states", JOINTS, "where `features` ask for joints"),
        _in("camera/policy/image_raw", IMAGE, "where the data set has pixels"),
        _in("episode", TEXT, "starts and ends, with `follow_episodes`"),
        _out("~/state", TEXT, "JSON at every change; latched"),
        _service("~/start", TRIGGER, "starts an episode"),
        _service("~/stop", TRIGGER, "ends it and keeps it"),
        _service("~/discard", TRIGGER, "ends it and forgets it"),
        _service("~/save", TRIGGER, "writes the data set"),
    ),
    "sim_base": (
        _in("robot/command", COMMANDS[0], "forward speed and rate of turning, in the base's frame"),
        _out("base_pose", POSE, "of the base on the floor"),
        _out("odom", "nav_msgs/msg/Odometry", "the same, with its velocity"),
        *_panorama("publishes", "panorama", "what the camera sees"),
        _out("graph", TEXT, "JSON `scan` and `connectivity`, the list of a Matterport3D graph; "
             "latched"),
        _service("~/reset", TRIGGER, "puts the base at the parameters `viewpoint` and `yaw`"),
    ),
    "world_model": (
        *_panorama("subscribes", "panorama", "what was really seen"),
        _in("path", PATH, "poses to predict, on the floor: the camera keeps its height"),
        *_panorama("publishes", "predicted", "what would be seen"),
        _out("predicted/points", "sensor_msgs/msg/PointCloud2",
             "x y z rgb class of what was seen and predicted; latched"),
        _out("/diagnostics", DIAGNOSTICS, "counts and times; 1 Hz"),
        _service("~/reset", TRIGGER, "forgets what was seen"),
    ),
    "navigator": (
        _in("instruction", TEXT, "where to go, in words"),
        _in("base_pose", POSE, "of the base on the floor"),
        *_panorama("subscribes", "panorama", "what the camera sees"),
        _in("graph", TEXT, "JSON `scan` and `connectivity`, where the parameter `graph` is empty"),
        _out("plan", PATH, "viewpoints ahead, the present one first; latched"),
        _out("policy/command", COMMANDS[0], "for the gate: forward speed and rate of turning"),
        _out("policy/inference", "sensor_msgs/msg/TimeReference", "stamp of the pose behind it"),
        _out("~/state", TEXT, "JSON `state`, `why`, `instruction`, `viewpoints`; latched"),
        _out("/diagnostics", DIAGNOSTICS, "counts and times; 1 Hz"),
        _service("~/cancel", TRIGGER, "stands still, and forgets the errand"),
    ),
    "forecast": (
        _in("occupancy", GRID, "what is occupied now, in percent; -1 unknown"),
        _in("map", GRID, "walls and what else never moves, on the same cells; latched, optional"),
        _out("forecast/NAME", GRID, "probability in percent that a cell will be occupied, a topic "
             "for each lead (`ahead_500ms`); `map_load_time` is when"),
        _out("/diagnostics", DIAGNOSTICS, "counts and times; 1 Hz"),
        _service("~/reset", TRIGGER, "forgets all frames, and where the grid was"),
    ),
    "goal_views": (
        _in("camera/color/image_raw", IMAGE, "of a pinhole camera"),
        _in("base_pose", POSE, "of the base that carries it, level"),
        _in("panorama/color/image_raw", IMAGE, "with `camera` panorama, instead of the two above"),
        _in("panorama/pose", POSE, "of the panoramic camera, level"),
        _in("~/text", TEXT, "what to look for, in any language"),
        _in("~/picture", IMAGE, "a picture of what to look for"),
        _out("~/goal", POSE, "where it was seen best, looking there: in the frame of the poses, "
             "under the stamp of the picture"),
        _out("~/ranking", TEXT, "JSON `text` (null for a picture), `frame`, `views` (`rank`, "
             "`score`, `x`, `y`, `z`, `yaw` of the camera, `stamp` in ns), `held`, `notes`, `ms`"),
        _out("/diagnostics", DIAGNOSTICS, "counts, views held and dropped, times; 1 Hz"),
        _service("~/reset", TRIGGER, "forgets what was seen"),
    ),
    "perception": (
        _in("camera/color/image_raw", IMAGE, "rgb8, bgr8, rgba8, bgra8 or mono8"),
        _in("camera/color/camera_info", INFO, "of a segmenter: for markers; of a multi-task "
            "network: for `~/scene/camera_info`"),
        _in("~/boxes", (DETECTIONS, TEXT), "of a segmenter, with `boxes`: what to mask, of the "
            "very same picture; JSON where vision_msgs is not installed"),
        _out("~/classes", TEXT, "of a classifier: JSON `stamp` (ns) and `frame` of the picture, "
             "`tasks` (`class`, `probability`, `all`), `ms`, `age_ms`"),
        _out("~/classification/NAME", "vision_msgs/msg/Classification",
             "the same for each task, most probable first; where vision_msgs is installed"),
        _out("~/triage", TEXT, "of a classifier for triage: JSON `stamp` (ns) and `frame` of the "
             "picture, `score`, `reaches` (operating points), `findings`, `ms`, `age_ms`"),
        _out("~/abnormality", "std_msgs/msg/Float32", "of a classifier for triage: its score"),
        _out("~/abnormality_map", IMAGE, "of a classifier for triage with exact maps: 32FC1, what "
             "each cell adds to the logit of the score"),
        _out("~/abnormality_overlay", IMAGE, "the same as a tint over the picture, rgb8"),
        _out("~/labels", IMAGE, "of a segmenter: 16UC1, 0 nothing, k the instance of id k"),
        _out("~/instances", TEXT, "of a segmenter: JSON `stamp` (ns) and `frame` of the picture, "
             "`instances` (`id`, `class`, `score`, `box`, `pixels`), `ms`, `age_ms`"),
        _out("~/detections", DETECTIONS,
             "the same without masks, where vision_msgs is installed"),
        _out("~/markers", "visualization_msgs/msg/MarkerArray",
             "outlines of the boxes and their words, on the rays of the camera, 1 m away"),
        _out("~/scene", TEXT, "of a multi-task network: JSON `stamp` (ns) and `frame` of the "
             "picture, `tasks` (a few words of each), `ms`, `age_ms`"),
        _out("~/scene/NAME", IMAGE, "of a multi-task network, at the size that it sees: classes "
             "mono8, values such as depth 32FC1 in m, directions such as normals 32FC3 in the "
             "optical frame, masks such as edges mono8, 255 for sure"),
        _out("~/scene/camera_info", INFO, "of those images, once the camera's own is known"),
        _out("~/numbers/NAME", "std_msgs/msg/Float64MultiArray",
             "of a multi-task network: such as a count of things"),
        _out("~/overlay/NAME", IMAGE, "of a multi-task network: classes as a tint over the "
             "picture, rgb8"),
        _out("/diagnostics", DIAGNOSTICS, "counts, times, backend, precision, parity; 1 Hz"),
        *_LIFECYCLE,
    ),
    "teleop_keyboard": (
        _out("policy/command", COMMANDS[0], "velocities, in place of a policy's"),
    ),
    "teleop_gamepad": (
        _in("joy", "sensor_msgs/msg/Joy", "sticks and buttons"),
        _out("policy/command", COMMANDS[0], "velocities, in place of a policy's"),
        _out("estop", "std_msgs/msg/Bool", "true while the button is pressed"),
    ),
}  # fmt: skip
"""By node, which is also the name of its module."""

NODE_SERVICES = tuple(
    f"~/{name}"
    for name in (
        "describe_parameters",
        "get_parameter_types",
        "get_parameters",
        "get_type_description",
        "list_parameters",
        "set_parameters",
        "set_parameters_atomically",
    )
)
"""What every node serves."""

EVERYWHERE = ("/rosout", "/parameter_events")
"""What every node publishes."""
