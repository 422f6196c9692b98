"""Indoor navigation: houses, Room-to-Room graphs, panoramas and the simulators that draw them."""
