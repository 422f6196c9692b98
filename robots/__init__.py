"""What stands between a policy and a robot: safety, time matching, streaming. Knows no ROS."""
