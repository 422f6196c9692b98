"""Pathdreamer (Koh et al. 2021): 360-degree views of places not yet visited."""
