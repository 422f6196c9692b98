"""Tabletop worlds in PyBullet: pushing, insertion and sorting of blocks."""

from envs.tabletop.quiet import quiet

# Before any module of this package: importing PyBullet prints its build time.
with quiet():
    import pybullet  # noqa: F401
