"""Name, version, dependencies and entry points: here, because colcon reads setup.py."""

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
    "tensorboard>=2.16",
    "torch>=2.6",
    "tyro>=0.9",
]

EXTRAS = {
    "cluster": ["ray>=2.40"],
    # FrankaKitchen fails on mujoco 4.0; envs/d4rl mends the rewards of exactly this
    # gymnasium-robotics; Minari downloads its data sets through the client that [hf] brings.
    "d4rl": ["gymnasium-robotics==1.4.2", "minari[hf]>=0.5", "mujoco>=3.3,<3.4"],
    "runtime": ["onnxruntime>=1.20", "openvino>=2025.0"],
    "test": [
        "hypothesis>=6.100",
        "pytest>=8",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
        "stable-baselines3>=2.4",
    ],
    "dev": ["codespell>=2.3", "mypy>=1.15", "pyright[nodejs]>=1.1.390", "ruff>=0.12"],
}

# Under ROS 2 the package is found by these two files; in a virtual environment they do no harm.
ROS_FILES = [
    ("share/ament_index/resource_index/packages", ["resource/decisive"]),
    ("share/decisive", ["package.xml"]),
]

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
    packages=find_packages(
        include=[
            f"{room}{below}"
            for room in ("agents", "decisive", "envs", "learning")
            for below in ("", ".*")
        ]
    ),
    package_data={
        "agents": ["checkpoints/**/*"],
        "decisive": ["py.typed"],
        "envs": ["**/assets/**/*"],
    },
    data_files=ROS_FILES,
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": ["decisive=decisive.cli:main"],
        "gymnasium.envs": ["__root__=envs:register_envs"],
    },
    zip_safe=False,
)
