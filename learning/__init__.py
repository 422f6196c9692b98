"""Training: demonstration data, checkpoints and the training loop.

Knows nothing of any particular policy or environment, and imports none of our other packages.
"""
