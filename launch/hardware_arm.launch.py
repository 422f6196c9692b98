"""A policy on an arm, through the safety gate. Read docs/ros2.md, "On hardware", before.

    ros2 launch decisive hardware_arm.launch.py arm_controller:=servo config:=my_cell.yaml

Starts neither the robot's driver nor its camera. The gate is disarmed until its service is called.
"""

from ros_nodes.launching import choice


def generate_launch_description():
    """What `ros2 launch` asks for."""
    return choice(
        "arm_controller",
        "MoveIt Servo, a joint trajectory controller, or a forward position controller",
        {
            "servo": "hardware_servo",
            "trajectory": "hardware_trajectory",
            "positions": "hardware_positions",
        },
    )
