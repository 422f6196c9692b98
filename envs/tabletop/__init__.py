"""Tabletop worlds in PyBullet: pushing, insertion and sorting of blocks."""
