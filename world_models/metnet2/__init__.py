"""MetNet-2: probabilistic forecasts on grids, for rain and for occupancy."""
