"""How Pathdreamer is trained: teacher forcing first, then on its own predictions.

`torchrun --nproc-per-node N` spreads a training over N processes, which average their gradients.
Every step is a function of the seed and its number, so a resumed training goes on bit by bit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from learning.adamw import FlatAdamW
from learning.flat import FlatParameters
from learning.loop import TrainResult
from learning.ranks import Ranks, joined
from learning.run import Run, isolated
from learning.train_config import learning_rate
from learning.train_state import restore_training, training_tensors
from world_models.pathdreamer.batches import (
    Echoes,
    Example,
    Examples,
    MakeGuidance,
    Truth,
    batches,
    stack_guidance,
    stack_truth,
)
from world_models.pathdreamer.discriminator import Discriminator
from world_models.pathdreamer.inputs import GuidanceBatch
from world_models.pathdreamer.losses import (
    adversarial_loss,
    class_weights,
    discriminator_loss,
    feature_matching_loss,
    room_loss,
    structure_loss,
    summary_loss,
)
from world_models.pathdreamer.model import Pathdreamer, save_world_model
from world_models.pathdreamer.panoramas import PanoramaSet, fingerprint, split_houses
from world_models.pathdreamer.rollouts import roll_out
from world_models.pathdreamer.scores import validate
from world_models.pathdreamer.train_config import SUMMARY_ECHO, DreamTrainConfig

_ADVERSARIAL_BETAS = (0.5, 0.999)
"""The second half of an adversarial game moves its target: less momentum (as in SE3DS)."""
_JUDGE = "discriminator/"
"""Before the names of the discriminator's tensors in a saved state."""

SaveFunction = Callable[[Pathdreamer, Path, dict[str, Any]], None]


def train_pathdreamer(
    model: Pathdreamer,
    data: PanoramaSet,
    config: DreamTrainConfig,
    out: str | Path,
    make_guidance: MakeGuidance,
    resume: bool = True,
    *,
    save: SaveFunction = save_world_model,
    progress: bool | None = None,
) -> TrainResult:
    """Train a model on walks through rendered houses.

    Writes `out/last` (a checkpoint), `out/train_state.safetensors`, `out/metrics.jsonl` and
    `out/tensorboard`; of the summary, which is learned before the rest, in `out/summary`. Called
    again with the same arguments after a kill, it goes on where the last saved state was; with a
    budget in steps, on a CPU, the weights end bit by bit as if there had been no kill.

    Args:
        model: trained in place and left with the final averaged weights, in evaluation mode.
        data: the houses; a share `holdout` of them, the last ones, is kept for validation.
        config: how to train.
        out: folder of the run, made if absent.
        make_guidance: projects what was seen into a panorama.
        resume: whether to go on with a run found in `out`; False starts afresh.
        save: writes a checkpoint, replacing the folder in one step.
        progress: whether to draw a progress bar; None where standard output is a terminal.

    Raises:
        ValueError: if the panoramas do not fit the model, `out` holds another run, or the loss
            became NaN.
        OSError: if `out` cannot be written; older checkpoints are untouched.
    """
    model.config.check_size(*data.size)
    if "summary" in config.parts and len(config.parts) > 1:
        first, then = config.in_turn()
        if model.structure.summary is None:
            then = replace(config, parts=then.parts)
        else:
            folder = Path(out) / "summary"
            train_pathdreamer(
                model, data, first, folder, make_guidance, resume, save=save, progress=progress
            )
        return train_pathdreamer(
            model, data, then, out, make_guidance, resume, save=save, progress=progress
        )
    with isolated(config.threads), joined(config.device) as ranks:
        run = _Run(model, data, config, Path(out), make_guidance, ranks, save)
        run.start(resume)
        history = run.train(progress)
    return TrainResult(run.at.step, None, run.at.seconds, history, run.out / "last")


class _Judge:
    """The discriminator on its way, with parameters and an optimiser of its own."""

    def __init__(self, module: Discriminator) -> None:
        self.module = module
        self.parameters = FlatParameters(module, matrices_apart=False)
        self.optimizer = FlatAdamW(self.parameters, 0.0, _ADVERSARIAL_BETAS)

    def descend(self, loss: Tensor, lr: float, grad_clip: float | None, ranks: Ranks) -> None:
        """Go down a loss, whose gradients are averaged over the processes."""
        self.parameters.zero_grad()
        loss.backward()
        ranks.average(self.parameters.grads)
        if grad_clip is not None:
            self.parameters.clip_grad(grad_clip)
        self.optimizer.step(lr)


class _Run(Run[DreamTrainConfig]):
    model: Pathdreamer

    def __init__(
        self,
        model: Pathdreamer,
        data: PanoramaSet,
        config: DreamTrainConfig,
        out: Path,
        make_guidance: MakeGuidance,
        ranks: Ranks,
        save: SaveFunction,
    ) -> None:
        super().__init__(
            model,
            config,
            out,
            {"network": model.config.to_dict(), "data": fingerprint(data)},
            config.precision,
            ranks=ranks,
            learned=_trained(model, config.parts),
            betas=_ADVERSARIAL_BETAS if config.adversarial else (0.9, 0.999),
        )
        self.data, self.make_guidance, self.save = data, make_guidance, save
        self.train_part, self.held = split_houses(data, config.holdout)
        counts = self.train_part.class_counts(model.config.n_classes)
        weights = class_weights(torch.from_numpy(counts), config.losses.class_power)
        self.weights = weights.to(self.device)
        self.adversary = None
        if config.adversarial:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.seed)
                self.adversary = _Judge(Discriminator(model.config).to(self.device))
        self.stream: Iterator[list[Example]] = iter(())

    def train(self, progress: bool | None) -> list[dict[str, Any]]:
        """Train to the end of the budget, on examples prepared ahead."""
        config = self.config
        drawn = Examples(self.train_part, self.make_guidance, config.walks, config.seed)
        examples = Echoes(drawn, SUMMARY_ECHO) if "summary" in config.parts else drawn
        self.stream = batches(
            examples,
            config.batch_size,
            self.at.step,
            self.ranks.rank,
            self.ranks.world,
            config.workers,
        )
        return super().train(progress)

    def step(self, fraction: float) -> dict[str, Tensor]:
        config, step, device = self.config, self.at.step, self.device
        examples = next(self.stream)
        found = [example.guidance for example in examples]
        generator = torch.Generator().manual_seed((config.seed * 1_000_003 + step) % 2**63)
        noise = self._noise(generator)
        if fraction >= config.recurrent_from and "summary" not in config.parts:
            rolled = [k for k, e in enumerate(examples) if e.draw < config.recurrent_share]
            if rolled:
                own = [examples[k] for k in rolled]
                paint = "image" in config.parts  # an untrained painter is better not asked
                dreamed = roll_out(self.model, own, self.make_guidance, generator, paint)
                found = [
                    dict(zip(rolled, dreamed, strict=True)).get(k, g) for k, g in enumerate(found)
                ]
        guidance = stack_guidance(found).to(device)
        truth = stack_truth([example.targets[-1] for example in examples]).to(device)
        with self.autocast():
            if "summary" in config.parts:
                rooms = [example.room for example in examples]
                loss, values = self._summary_losses(guidance, truth, rooms)
                painted = None
            else:
                loss, values, painted = self._losses(guidance, truth, noise, fraction)
        self.descend(loss, fraction)
        if self.adversary is not None and painted is not None and self._adversarial(fraction):
            judge = self.adversary.module.train()
            with self.autocast():
                against = discriminator_loss(
                    judge(truth.rgb, truth.semantic, truth.depth),
                    judge(painted.detach().clamp(0, 1), truth.semantic, truth.depth),
                )
            lr = learning_rate(config, step, fraction) * config.discriminator_lr
            self.adversary.descend(against, lr, config.grad_clip, self.ranks)
            values["discriminator"] = against.detach()
        return {"loss": loss.detach(), **values}

    def _summary_losses(
        self, guidance: GuidanceBatch, truth: Truth, rooms: Sequence[str]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of the summary and its parts."""
        summary = self.model.structure.summary
        assert summary is not None
        vector = summary(guidance)
        shown = summary_loss(summary.classes(vector).float(), truth.semantic)
        values = {"shown": shown.detach()}
        if summary.rooms is None:
            return shown, values
        known = self.model.config.rooms
        labels = [known.index(room) if room in known else -1 for room in rooms]
        named = room_loss(summary.rooms(vector).float(), torch.tensor(labels, device=self.device))
        values["room"] = named.detach()
        return shown + self.config.losses.room * named, values

    def _losses(
        self, guidance: GuidanceBatch, truth: Truth, noise: Tensor, fraction: float
    ) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
        """Loss of the generators, its parts, and the painted pictures."""
        weights, model = self.config.losses, self.model
        total = torch.zeros((), device=self.device)
        values: dict[str, Tensor] = {}
        painted = None
        if "structure" in self.config.parts:
            whole = GuidanceBatch.of_truth(truth.rgb, truth.semantic, truth.depth)
            predicted = model.structure(guidance, noise, truth=whole)
            loss, parts = structure_loss(
                predicted,
                truth.semantic,
                truth.depth,
                self.weights,
                model.config.max_depth,
                weights,
            )
            total = total + loss
            values |= parts
        if "image" in self.config.parts:
            painted = model.image(guidance, truth.semantic, truth.depth)
            colour = (painted - truth.rgb).abs().mean()
            values["colour"] = colour.detach()
            total = total + weights.colour * colour
            if self.adversary is not None and self._adversarial(fraction):
                loss = self._judged(painted, truth)
                values["adversarial"] = loss.detach()
                total = total + loss
        return total, values, painted

    def _judged(self, painted: Tensor, truth: Truth) -> Tensor:
        """What the discriminator says of painted pictures; it learns nothing here."""
        assert self.adversary is not None
        judge, weights = self.adversary.module.eval().requires_grad_(False), self.config.losses
        fake = judge(painted.clamp(0, 1), truth.semantic, truth.depth)
        loss = weights.adversarial * adversarial_loss(fake)
        if weights.feature_matching:
            with torch.no_grad():
                real = judge(truth.rgb, truth.semantic, truth.depth)
            loss = loss + weights.feature_matching * feature_matching_loss(real, fake)
        judge.requires_grad_(True)
        return loss

    def _adversarial(self, fraction: float) -> bool:
        return fraction >= self.config.adversarial_from

    def _noise(self, generator: torch.Generator) -> Tensor:
        """This process's share of the noise of the whole batch."""
        whole = self.model.noise(self.config.batch_size, self.data.size, generator)
        return whole.chunk(self.ranks.world)[self.ranks.rank]

    def validate(self) -> dict[str, float]:
        if self.held is None or "summary" in self.config.parts:
            return {}
        with self.averaged(), self.autocast():
            found = validate(
                self.model,
                self.held,
                self.make_guidance,
                self.config.walks,
                self.config.seed + 1,
                self.config.validate_samples,
                self.config.batch_size,
            )
        return {f"validation/{name}": value for name, value in found.items()}

    def checkpoint(self) -> None:
        training = {
            **self.facts(),
            "houses": len(self.train_part.houses),
            "panoramas": len(self.data),
            "size": list(self.data.size),
        }
        with self.averaged():
            self.save(self.model, self.out / "last", training)

    def more_state(self) -> dict[str, Tensor]:
        if self.adversary is None:
            return {}
        own = training_tensors(self.adversary.module, self.adversary.optimizer, None)
        return {f"{_JUDGE}{name}": value for name, value in own.items()}

    def restore_more(self, tensors: Mapping[str, Tensor]) -> None:
        if self.adversary is not None:
            own = {
                name.removeprefix(_JUDGE): tensor
                for name, tensor in tensors.items()
                if name.startswith(_JUDGE)
            }
            restore_training(own, self.adversary.module, self.adversary.optimizer, None)


def _trained(model: Pathdreamer, parts: Sequence[str]) -> nn.ModuleDict:
    """What learns. The structure generator leaves its summary as it is.

    Raises:
        ValueError: for the summary of a model that has none.
    """
    if "summary" in parts:
        if model.structure.summary is None:
            raise ValueError("the model has no summary (StructureConfig.summary)")
        return nn.ModuleDict({"summary": model.structure.summary})
    found: dict[str, nn.Module] = {}
    for part in parts:
        module: nn.Module = getattr(model, part)
        if part == "structure":
            rest = {n: child for n, child in module.named_children() if n != "summary" and child}
            module = nn.ModuleDict(rest)
        found[part] = module
    return nn.ModuleDict(found)
