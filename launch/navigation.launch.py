"""A base follows instructions, looking ahead in a world model, behind the safety gate.

    ros2 launch decisive navigation.launch.py
    ros2 launch decisive navigation.launch.py base:=hardware config:=my_base.yaml

Read docs/ros2.md, "Navigation". The gate is disarmed until its service is called.
"""

from ros_nodes.launching import choice


def generate_launch_description():
    """What `ros2 launch` asks for."""
    return choice(
        "base",
        "a simulated base in a procedural house, or a real one: its driver is not started",
        {"sim": "sim_navigation", "hardware": "hardware_navigation"},
    )
