"""`python -m decisive` is the same as `decisive`."""

import sys

from decisive.cli import main

# Worker processes import this module again under another name: only the first one is the command.
if __name__ == "__main__":
    sys.exit(main())
