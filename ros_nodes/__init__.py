"""ROS 2 nodes: messages to arrays and back around code that knows no ROS."""
