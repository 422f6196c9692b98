"""Name, version, dependencies and entry points: here, because colcon reads setup.py."""

import sys
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

CORE = [
    "gymnasium>=1.2,<2",
    "h5py>=3.10",
    "imageio-ffmpeg>=0.5",
    "matplotlib>=3.8",
    "minari>=0.5",
    "numpy>=1.26",
    "open3d>=0.19",
    "pillow>=10",
    "pybullet==3.2.7",
    "rich>=13",
    "safetensors>=0.4",
    "scipy>=1.11",
    "tensorboard>=2.16",
    "torch>=2.6",
    "tyro>=0.9",
]

EXTRAS = {
    "cluster": ["ray>=2.40"],
    # FrankaKitchen fails on mujoco 4.0; envs/d4rl mends the rewards of exactly this
    # gymnasium-robotics; Minari downloads its data sets through the client that [hf] brings.
    "d4rl": ["gymnasium-robotics==1.4.2", "minari[hf]>=0.5", "mujoco>=3.3,<3.4"],
    # ROS 2 Jazzy from wheels, for machines without ROS: never beside a sourced one, whose libraries
    # these would meet. Exact, because plain ros-rclpy is another distribution by now, and because
    # one maintainer builds them. rclpy alone does not import: it needs a middleware.
    "ros": [
        "ros-jazzy-diagnostic-msgs==5.3.6",
        "ros-jazzy-geometry-msgs==5.3.6",
        "ros-jazzy-lifecycle-msgs==2.0.3",
        "ros-jazzy-nav-msgs==5.3.6",
        "ros-jazzy-rclpy==7.1.6",
        "ros-jazzy-rmw-fastrtps-cpp==8.4.3",
        "ros-jazzy-sensor-msgs==5.3.6",
        "ros-jazzy-std-msgs==5.3.6",
        "ros-jazzy-std-srvs==5.3.6",
        "ros-jazzy-trajectory-msgs==5.3.6",
        "ros-jazzy-visualization-msgs==5.3.6",
        "rosbags>=0.11.9",
    ],
    "masks": ["pycocotools>=2.0.8"],
    "runtime": ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.5", "openvino>=2025.0"],
    "test": [
        # What `colcon build` of this one package takes; colcon-core wants setuptools below 80, and
        # three pytest plugins that pyproject.toml keeps out of our runs.
        "colcon-bash>=0.5",
        "colcon-core>=0.19",
        "colcon-package-selection>=0.2",
        "colcon-ros>=0.5",
        "hypothesis>=6.100",
        "pytest>=8",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
        "pyyaml>=6",
        "stable-baselines3>=2.4",
    ],
    # Reads MRMS, which comes as GRIB2; the other radars need nothing more.
    "weather": ["pygrib>=2.1.8"],
    "dev": ["codespell>=2.3", "mypy>=1.15", "pyright[nodejs]>=1.1.390", "ruff>=0.12"],
}

ROOMS = (
    "agents",
    "decisive",
    "envs",
    "learning",
    "perception",
    "robots",
    "ros_nodes",
    "world_models",
)


def files(folder: str, pattern: str) -> list[str]:
    """Relative paths: colcon links them into a build folder and runs this file there."""
    return sorted(str(path) for path in Path(folder).glob(pattern))


# Under ROS 2 the package is found by the first two; `decisive ros up` finds the rest without ROS.
ROS_FILES = [
    ("share/ament_index/resource_index/packages", ["resource/decisive"]),
    ("share/decisive", ["package.xml"]),
    ("share/decisive/launch", files("launch", "*.launch.py")),
    ("share/decisive/config", [*files("config", "*.yaml"), *files("config", "*.xml")]),
]

# Programs among the modules of ros_nodes. What takes seconds to load goes by `start`, which heeds
# signals from the first moment.
NODES = {
    "forecast": "start:forecast",
    "goal_views": "start:goal_views",
    "navigator": "start:navigator",
    "object_poses": "start:object_poses",
    "perception": "start:perception",
    "policy": "start:policy",
    "recorder": "recorder:main",
    "safety_gate": "start:safety_gate",
    "sim_base": "start:sim_base",
    "sim_robot": "start:sim_robot",
    "teleop_gamepad": "teleop_gamepad:main",
    "teleop_keyboard": "teleop_keyboard:main",
    "world_model": "start:world_model",
}

COMMANDS = ["decisive=decisive.cli:main"]
# `ros2 run decisive policy` runs lib/decisive/policy: setup.cfg has scripts put there, and colcon,
# bloom and ament run this file as a program, which obeys setup.cfg. pip does not, and names as
# short as these would land on everybody's PATH, where nobody needs them without `ros2 run`:
# `python -m ros_nodes.policy` does the same. pip imports this file, under another argv[0].
if Path(sys.argv[0]).name == "setup.py":
    COMMANDS += [f"{name}=ros_nodes.{place}" for name, place in NODES.items()]

# Gymnasium 1.x has no plugin entry points, and its ids shall be known without an import of ours:
# see decisive/gymnasium_plugin.py. A half removed installation must not trouble other programs.
PLUGIN = "decisive_gymnasium.pth"
PLUGIN_LINE = (
    "import sys; exec('try:\\n from decisive.gymnasium_plugin import install\\n"
    " install()\\nexcept Exception: pass')\n"
)


class BuildWithPlugin(build_py):
    """Puts the start-up line beside the packages, in wheels and in editable installations."""

    def run(self) -> None:
        """Build the packages and write the line."""
        super().run()
        if self.editable_mode:
            root = self.get_finalized_command("install").install_lib
        else:
            root = self.build_lib
        (Path(root) / PLUGIN).write_text(PLUGIN_LINE)


setup(
    name="decisive",
    version="0.1.0",
    description="Simulate, demonstrate, learn a decisive policy, evaluate it.",
    long_description="Robot learning with implicit (energy-based) policies: environments, "
    "demonstrations, training, evaluation. See README.md.",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    package_dir={"": "."},
    cmdclass={"build_py": BuildWithPlugin},
    packages=find_packages(include=[f"{room}{below}" for room in ROOMS for below in ("", ".*")]),
    package_data={
        "agents": ["checkpoints/**/*", "vln/checkpoints/**/*"],
        "decisive": ["py.typed"],
        "envs": ["**/assets/**/*"],
        "learning": ["distillation/sets/**/*"],
        "perception": [
            "checkpoints/**/*",
            "deep_mac/checkpoints/**/*",
            "mural/checkpoints/**/*",
            "multi_task_checkpoints/**/*",
        ],
        "world_models": ["checkpoints/**/*", "pathdreamer/*.json"],
    },
    data_files=ROS_FILES,
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": COMMANDS,
        "gymnasium.envs": ["__root__=envs:register_envs"],
    },
    zip_safe=False,
)
