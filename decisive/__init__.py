"""The command line of Decisive, and the library behind its verbs.

Importing this package is cheap: every verb loads what it needs when it is called.
"""

__version__ = "0.1.0"
