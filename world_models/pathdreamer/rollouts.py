"""Predictions from predictions: the viewpoints before the target are dreamed, then projected."""

from collections.abc import Sequence

import numpy as np
import torch

from world_models.pathdreamer.batches import Example, GuidanceArrays, MakeGuidance, stack_guidance
from world_models.pathdreamer.model import Pathdreamer
from world_models.pathdreamer.panoramas import Seen


def roll_out(
    model: Pathdreamer,
    examples: Sequence[Example],
    make_guidance: MakeGuidance,
    generator: torch.Generator,
    rgb: bool = True,
) -> list[GuidanceArrays]:
    """Guidance of the last targets once the viewpoints before them were predicted.

    Only what the memory did not show is kept of a prediction, as in the paper: pixels that it did
    show get depth 0, which makes no points.

    Args:
        model: predicts; each latent is a draw from the prior.
        examples: walks of any number of hops; those of one hop are not changed.
        make_guidance: projects.
        generator: of the latents.
        rgb: whether to paint too; without, what was dreamed has the nearest colour that is seen.
    """
    memories = [list(example.context) for example in examples]
    guidance = [example.guidance for example in examples]
    for hop in range(max(len(example.targets) for example in examples) - 1):
        walking = [k for k, example in enumerate(examples) if len(example.targets) > hop + 1]
        places = [examples[k].targets[hop].position for k in walking]
        seen = [make_guidance(memories[k], place) for k, place in zip(walking, places, strict=True)]
        dreamed = model.predict(stack_guidance(seen), generator, rgb=rgb)
        painted = [g.filled_rgb for g in seen] if dreamed.rgb is None else dreamed.rgb
        for row, k in enumerate(walking):
            new = np.where(seen[row].valid, np.float32(0), dreamed.depth[row])
            memories[k].append(Seen(painted[row], dreamed.semantic[row], new, places[row]))
    for k, example in enumerate(examples):
        if len(example.targets) > 1:
            guidance[k] = make_guidance(memories[k], example.targets[-1].position)
    return guidance
