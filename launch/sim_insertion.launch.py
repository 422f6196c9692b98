"""A simulated cell: the implicit policy inserts a block, through the safety gate.

    ros2 launch decisive sim_insertion.launch.py
    ros2 service call /safety_gate/arm std_srvs/srv/SetBool "{data: true}"

Without ROS 2's launch: `decisive ros up sim_insertion --arm`.
"""

from ros_nodes.launching import description


def generate_launch_description():
    """What `ros2 launch` asks for."""
    return description("sim_insertion")
