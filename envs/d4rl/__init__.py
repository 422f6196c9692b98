"""D4RL's tasks as D4RL defines them, on gymnasium-robotics' simulators (extra `d4rl`)."""
