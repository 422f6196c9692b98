"""How Pathdreamer is trained: teacher forcing first, then on its own predictions.

`torchrun --nproc-per-node N` spreads a training over N processes, which average their gradients.
Every step is a function of the seed and its number, so a resumed training goes on bit by bit.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from learning.adamw import FlatAdamW
from learning.checkpoint import CheckpointError
from learning.ema import Ema
from learning.flat import FlatParameters
from learning.loop import TrainResult
from learning.precision import has_bfloat16
from learning.ranks import Ranks, joined
from learning.train_config import learning_rate
from learning.train_log import TrainLog
from learning.train_state import read_state, restore_training, training_tensors, write_state
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

STATE_FILE = "train_state.safetensors"
# These change how a run is watched or where it computes, not what it is.
_FREE_ON_RESUME = ("log_every", "save_every", "validate_every", "threads", "device", "workers")

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
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        with joined(config.device) as ranks:
            run = _Run(model, data, config, Path(out), make_guidance, ranks, save)
            run.start(resume)
            return run.finish(progress)
    finally:
        torch.set_num_threads(threads)


@dataclass
class _Progress:
    """The numbers that a run carries from step to step."""

    step: int = 0
    seconds: float = 0.0
    finished: bool = False


class _Learner:
    """A module's flat parameters with their optimiser."""

    def __init__(self, module: nn.Module, decay: float, config: DreamTrainConfig) -> None:
        self.module = module
        self.parameters = FlatParameters(module, matrices_apart=decay > 0)
        # The second half of an adversarial game moves its target: less momentum (as in SE3DS).
        betas = (0.5, 0.999) if config.adversarial else (0.9, 0.999)
        self.optimizer = FlatAdamW(self.parameters, decay, betas)
        self.grad_clip = config.grad_clip

    def step(self, loss: Tensor, lr: float, world: int) -> None:
        """Go down a loss, whose gradients are averaged over the processes."""
        self.parameters.zero_grad()
        loss.backward()
        if world > 1:
            for grad in self.parameters.grads:
                dist.all_reduce(grad)
                grad /= world
        if self.grad_clip is not None:
            self.parameters.clip_grad(self.grad_clip)
        self.optimizer.step(lr)


@dataclass
class _Run:
    model: Pathdreamer
    data: PanoramaSet
    config: DreamTrainConfig
    out: Path
    make_guidance: MakeGuidance
    ranks: Ranks
    save: SaveFunction
    at: _Progress = field(default_factory=_Progress)

    def __post_init__(self) -> None:
        config, device = self.config, self.ranks.device
        self.train_part, self.held = split_houses(self.data, config.holdout)
        counts = self.train_part.class_counts(self.model.config.n_classes)
        self.weights = class_weights(torch.from_numpy(counts), config.losses.class_power).to(device)
        self.model.to(device)
        trained = _trained(self.model, config.parts)
        self.learner = _Learner(trained, config.weight_decay, config)
        self.ema = None
        if config.ema_decay is not None:
            self.ema = Ema(self.learner.parameters, config.ema_decay)
        self.adversary = None
        if config.adversarial:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.seed)
                self.adversary = _Learner(Discriminator(self.model.config).to(device), 0.0, config)
        bfloat16 = config.precision == "bfloat16" or (
            config.precision == "auto" and has_bfloat16(device)
        )
        self.precision = torch.bfloat16 if bfloat16 else torch.float32
        self.clock = time.process_time if device.type == "cpu" else time.perf_counter
        self.identity: dict[str, Any] = {
            "config": _plain({k: v for k, v in asdict(config).items() if k not in _FREE_ON_RESUME}),
            "model": _plain(self.model.config.to_dict()),
            "data": fingerprint(self.data),
        }

    def start(self, resume: bool) -> None:
        """Begin afresh, or take up the state found in the folder; all processes alike."""
        self.out.mkdir(parents=True, exist_ok=True)
        state = self.out / STATE_FILE
        if resume and state.is_file():
            self._restore(*read_state(state))
        elif self.ranks.first:
            state.unlink(missing_ok=True)
        if self.ranks.world > 1:
            modules = [self.model] + ([self.adversary.module] if self.adversary else [])
            for tensor in [t for module in modules for t in module.state_dict().values()]:
                dist.broadcast(tensor, src=0)
            # The averages begin at the weights: take the broadcast ones.
            if self.ema is not None and self.at.step == 0:
                for average, live in zip(
                    self.ema.tensors, self.learner.parameters.tensors, strict=True
                ):
                    average.copy_(live.detach())

    def finish(self, progress: bool | None) -> TrainResult:
        """Train to the end of the budget."""
        log = TrainLog(self.out, self.at.step, self.ranks.first, self.config.tensorboard, progress)
        with log:
            if not self.at.finished:
                self._loop(log)
        if self.ema is not None:
            self.learner.parameters.attach([average.clone() for average in self.ema.tensors])
        self.model.eval()
        return TrainResult(self.at.step, None, self.at.seconds, log.history, self.out / "last")

    def _loop(self, log: TrainLog) -> None:
        config, at = self.config, self.at
        drawn = Examples(self.train_part, self.make_guidance, config.walks, config.seed)
        examples = Echoes(drawn, SUMMARY_ECHO) if "summary" in config.parts else drawn
        stream = batches(
            examples,
            config.batch_size,
            at.step,
            self.ranks.rank,
            self.ranks.world,
            config.workers,
        )
        self.model.train()
        began, fraction = self.clock(), self._fraction(0.0)
        summed: dict[str, Tensor] = {}
        n_summed = 0
        while fraction < 1:
            for name, value in self._step(stream, fraction).items():
                summed[name] = summed.get(name, torch.zeros_like(value)) + value
            n_summed += 1
            at.step += 1
            fraction = self._fraction(self.clock() - began)
            last = fraction >= 1
            logging = last or at.step % config.log_every == 0
            scored = self.held is not None and "summary" not in config.parts
            validating = scored and (last or at.step % config.validate_every == 0)
            saving = last or at.step % config.save_every == 0
            if not (logging or validating or saving):
                continue
            at.seconds += self.clock() - began
            row: dict[str, float] = {}
            if logging:
                row |= self._row(
                    {name: float(v) / n_summed for name, v in summed.items()}, fraction
                )
                summed, n_summed = {}, 0
            if validating and self.ranks.first:
                row |= self._validate()
            if row:
                log.row(at.step, min(fraction, 1.0), row)
            if saving:
                at.finished = last
                self._save_all()
            self.model.train()
            began = self.clock()

    def _step(self, stream: Iterator[list[Example]], fraction: float) -> dict[str, Tensor]:
        config, step, device = self.config, self.at.step, self.ranks.device
        examples = next(stream)
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
        lr = learning_rate(config, step, fraction)
        with self._autocast():
            if "summary" in config.parts:
                rooms = [example.room for example in examples]
                loss, values = self._summary_losses(guidance, truth, rooms)
                painted = None
            else:
                loss, values, painted = self._losses(guidance, truth, noise, fraction)
        self.learner.step(loss, lr, self.ranks.world)
        if self.ema is not None:
            self.ema.update(step)
        if self.adversary is not None and painted is not None and self._adversarial(fraction):
            judge = self.adversary.module.train()
            with self._autocast():
                against = discriminator_loss(
                    judge(truth.rgb, truth.semantic, truth.depth),
                    judge(painted.detach().clamp(0, 1), truth.semantic, truth.depth),
                )
            self.adversary.step(against, lr * config.discriminator_lr, self.ranks.world)
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
        named = room_loss(
            summary.rooms(vector).float(), torch.tensor(labels, device=self.ranks.device)
        )
        values["room"] = named.detach()
        return shown + self.config.losses.room * named, values

    def _losses(
        self, guidance: GuidanceBatch, truth: Truth, noise: Tensor, fraction: float
    ) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
        """Loss of the generators, its parts, and the painted pictures."""
        weights, model = self.config.losses, self.model
        total = torch.zeros((), device=self.ranks.device)
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

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(
            self.ranks.device.type, self.precision, enabled=self.precision != torch.float32
        )

    def _fraction(self, running: float) -> float:
        """Share of the budget spent, given the seconds since the clock was last read."""
        spent = []
        if self.config.steps is not None:
            spent.append(self.at.step / self.config.steps)
        if self.config.cpu_seconds is not None:
            share = (self.at.seconds + running) / self.config.cpu_seconds
            spent.append(self.ranks.from_first(share))
        return max(spent)

    def _row(self, means: Mapping[str, float], fraction: float) -> dict[str, float]:
        if not math.isfinite(means["loss"]):
            raise ValueError(
                f"the loss became {means['loss']} by step {self.at.step}; lower lr or grad_clip "
                "(saved checkpoints are from before)"
            )
        return {
            **means,
            "lr": learning_rate(self.config, self.at.step, fraction),
            "cpu_seconds": self.at.seconds,
        }

    def _averaged(self) -> AbstractContextManager[None]:
        return nullcontext() if self.ema is None else self.ema.applied()

    def _validate(self) -> dict[str, float]:
        assert self.held is not None
        self.model.eval()
        with self._averaged(), self._autocast():
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

    def _save_all(self) -> None:
        if not self.ranks.first:
            return
        training = {
            "step": self.at.step,
            "cpu_seconds": self.at.seconds,
            "device": self.ranks.device.type,
            "precision": str(self.precision).removeprefix("torch."),
            "houses": len(self.train_part.houses),
            "panoramas": len(self.data),
            "size": list(self.data.size),
            "train": asdict(self.config),
        }
        with self._averaged():
            self.save(self.model, self.out / "last", training)
        tensors = training_tensors(self.model, self.learner.optimizer, self.ema)
        if self.adversary is not None:
            own = training_tensors(self.adversary.module, self.adversary.optimizer, None)
            tensors |= {f"discriminator/{name}": value for name, value in own.items()}
        write_state(self.out / STATE_FILE, tensors, {"at": asdict(self.at), **self.identity})

    def _restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        for key, expected in self.identity.items():
            if values.get(key) != expected:
                raise ValueError(
                    f"{self.out} holds a run with other {key}; use another folder, or start afresh "
                    "(--fresh, resume=False)"
                )
        restore_training(tensors, self.model, self.learner.optimizer, self.ema)
        if self.adversary is not None:
            prefix = "discriminator/"
            own = {
                name.removeprefix(prefix): tensor
                for name, tensor in tensors.items()
                if name.startswith(prefix)
            }
            restore_training(own, self.adversary.module, self.adversary.optimizer, None)
        try:
            self.at = _Progress(**values["at"])
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{self.out / STATE_FILE}: incomplete: {error}") from None


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


def _plain(value: Any) -> Any:
    """As JSON gives it back: tuples become lists."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
