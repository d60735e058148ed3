"""One trial on one rank: epochs, evaluations and checkpoints, without knowing of Ray.

Everything random is derived from (seed, epoch, rank) or from (seed, epoch, sample_id), never from
what ran before in the process: the same config gives the same figures in a fresh slot, after
other trials, and after a restart from a checkpoint.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trustsweep.data_pipelines.augmentation import Augmentation
from trustsweep.data_pipelines.corruptions.seeds import draw_seeds
from trustsweep.data_pipelines.corruptions.suite import TrainingCorruption, corrupt
from trustsweep.data_pipelines.schema import Batch, Manifest
from trustsweep.data_pipelines.streams import Stream, Transform
from trustsweep.distributed.workers.cost import Cost, Meter
from trustsweep.distributed.workers.fidelity import FULL, Level, Levels, portion
from trustsweep.distributed.workers.rank import Rank
from trustsweep.distributed.workers.recipe import Average, Recipe
from trustsweep.distributed.workers.temperature import Scaled, fit_temperature
from trustsweep.search_spaces.study import Fidelity, Scheduler
from trustsweep.trainables.attacks import adversary
from trustsweep.trainables.attacks.ensemble import Ensemble, Single, left_out, settings
from trustsweep.trainables.attacks.masking import Effort, Masking, masking
from trustsweep.trainables.contract import Method, Progress
from trustsweep.trainables.evaluation import Evaluation, EvaluationPlan, evaluate, panel
from trustsweep.trainables.metrics.prior import Prior
from trustsweep.trainables.networks import load_encoder
from trustsweep.trainables.regimes import Regime, from_config
from trustsweep.trainables.registry import METHODS
from trustsweep.trainables.sample_scores import SampleScores


class Diverged(RuntimeError):
    """The training loss stopped being a number; the message says where."""


class _Objective(NamedTuple):
    """What a config makes of the network; without state, so made anew for every level."""

    method: Method
    regime: Regime


class TrialTraining:
    """The state of one trial: network, optimiser and what they are trained with."""

    def __init__(
        self,
        config: Mapping[str, Any],
        manifest: Manifest,
        plan: EvaluationPlan,
        *,
        device: torch.device | str = "cpu",
        rank: Rank | None = None,
        levels: Levels | None = None,
        prior: Prior | None = None,
        network: Callable[[], nn.Module] | None = None,
    ) -> None:
        """Without `levels`, every epoch uses all of everything; `prior` as in `Evaluation`.

        `network` makes another than the method's own, with the same outputs, to compare with.

        Raises `UserError` for a config that the method or the regime cannot use.
        """
        self.config = dict(config)
        self.manifest = manifest
        self.plan = plan
        self.prior = prior
        self.rank = rank or Rank()
        self.device = torch.device(device)
        # Without rungs there is nothing to grow towards.
        self.levels = levels or Levels(Fidelity(), Scheduler(rungs=[]), config["epochs"])
        self._meter = Meter(self.rank, self.device)
        torch.manual_seed(int(self._seed("init")))
        self.network: nn.Module = (network or self.method.network)().to(self.device)
        if self._on_gpu and manifest.spatial_dims == 2:
            # torch's annotations leave out what its documentation has.
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.corruption = TrainingCorruption(
            plan.corruptions,
            config["corruption_fraction"],
            config["seed"],
            manifest=manifest,
            suite=plan.suite,
            modality_corruption=config["modality_corruption"],
            p_miss=config["p_miss"],
        )
        self._augmentation = Augmentation(
            config["augmentation"], config["flips"], config["seed"], manifest=manifest
        )
        # One object for the whole training: streams tell trials apart by it.
        self._transform = partial(_in_turn, (self._augmentation, self.corruption))
        self._corrupt = partial(corrupt, manifest=manifest, suite=plan.suite)
        self._recipe = Recipe(config, self.method.task, prior)
        self._average = Average(self.network, self._recipe.ema) if self._recipe.ema else None
        self.epochs_done = 0
        # Gradients are averaged through this wrapper; attacks and evaluation use the bare network,
        # as differentiating with respect to images would upset the wrapper's reducer.
        self._synchronised: nn.Module = self.network
        if self.rank.world > 1:
            ids = [self.device] if self._on_gpu else None
            self._synchronised = DistributedDataParallel(self.network, device_ids=ids)

    @cached_property
    def optimiser(self) -> torch.optim.Optimizer:
        """Made where it is first asked for: torch loads its compiler with it, which takes seconds
        that a process which only judges need not wait."""
        return self._recipe.make_optimiser(self.network)

    @property
    def patience(self) -> int:
        """Epochs without a better one after which the training ends; 0 for all of them."""
        return self._recipe.patience

    @cached_property
    def method(self) -> Method:
        """What the config makes of the data, at its full size."""
        return self._objective(FULL).method

    @property
    def model(self) -> nn.Module:
        """What is judged and kept: the network, or with `ema` the mean of its weights."""
        return self.network if self._average is None else self._average.network

    def epoch(self, samples: Stream) -> dict[str, float]:
        """Train one epoch. Returns its mean losses, counts and seconds.

        Raises `Diverged` on every rank alike when the loss is not finite.
        """
        index, epochs = self.epochs_done, self.config["epochs"]
        if not index and self.config["encoder"]:
            self._start_from(Path(self.config["encoder"]))
        level = self.levels.training(index)
        objective = self._objective(level)
        steps = samples.steps(self.config["batch_size"], self.rank.world, level.data)
        totals: dict[str, torch.Tensor] = {}
        with self._meter.running() as spent:
            torch.manual_seed(int(self._seed("epoch", index, self.rank.index)))
            self.network.train()
            for step, (batch, weight) in enumerate(self._batches(samples)):
                progress = Progress(index + step / steps, epochs)
                batch = self._moved(batch, level)
                sums = self._step(objective, batch, weight, progress, step, spent)
                for name, value in sums.items():
                    value = torch.as_tensor(value, dtype=torch.float64, device=self.device)
                    totals[name] = totals[name] + value if name in totals else value
            self.epochs_done += 1
        return self._summarise(totals, spent)

    def evaluate(
        self,
        samples: Stream,
        level: Level = FULL,
        *,
        batch_size: int,
        scores: SampleScores | None = None,
        attack: str | None = None,
        corrupted: bool = True,
        temperature: float = 1.0,
    ) -> Evaluation:
        """This rank's part of an evaluation; merge the ranks' parts before computing.

        Args:
            samples: The split that judges.
            level: `FULL`, `CLEAN`, or that of a rung, `levels.evaluation(rung)`. Corruptions are
                of images at the level's size.
            batch_size: Of each rank.
            scores: Gathers what each sample of this rank scored.
            attack: Instead of the plan's.
            corrupted: Whether the plan's corruptions are judged as well.
            temperature: Scores are divided by it; see `trustsweep.distributed.workers.temperature`.
        """
        plan = self.plan.clean() if level.clean else self.plan
        steps = portion(plan.attack_steps, level.evaluation_steps)
        plan = dataclasses.replace(
            plan,
            attack=attack or plan.attack,
            attack_steps=steps,
            corruptions=plan.corruptions if corrupted else (),
        )
        method = self._objective(level).method
        if temperature != 1:
            method = Scaled(method, temperature)
        batches = samples.sweep(batch_size, self.rank.index, self.rank.world, level.validation)
        with self._meter.running() as spent, self._autocast():
            return evaluate(
                method,
                self.model,
                (self._moved(batch, level) for batch in batches),
                plan,
                corrupt=self._corrupt,
                attack=partial(self._attack, method, plan, spent, level),
                scores=scores,
                prior=self.prior,
            )

    def fit_temperature(self, samples: Stream, batch_size: int) -> float:
        """T of the least NLL on clean samples; see `temperature.fit_temperature`."""
        batches = (self._moved(batch, FULL) for batch in samples.sweep(batch_size))
        with self._autocast():
            return fit_temperature(self.method, self.model, batches)

    def panel(self, batch: Batch, epsilon: float) -> dict[str, np.ndarray]:
        """What the report shows of some images, clean and attacked; see `evaluation.panel`."""
        attack = partial(self._attack, self.method, self.plan, Cost(), FULL)
        with self._autocast():
            return panel(self.method, self.model, self._moved(batch, FULL), attack, epsilon)

    def attack_settings(self, attack: str | None = None) -> list[dict[str, Any]]:
        """The members of the evaluation's attack, or of another; see `ensemble.settings`."""
        return settings(self._adversary(self.method, self.plan, attack))

    def attacks_left_out(self) -> list[str]:
        """See `ensemble.left_out`."""
        return left_out(self.method, self.plan.norm)

    def masking(
        self, batch: Batch, epsilon: float, effort: Effort, *, batch_size: int | None = None
    ) -> Masking:
        """Signs on some samples that gradients are hidden; see `masking.masking`."""
        with self._autocast():
            return masking(
                self.method,
                self.model,
                self._moved(batch, FULL),
                epsilon,
                seeds=draw_seeds(batch.sample_id, "masking"),
                norm=self.plan.norm,
                effort=effort,
                batch_size=batch_size,
            )

    def cost_metrics(self) -> dict[str, float]:
        """What the trial took so far, over all ranks and restarts, as ``cost.images``."""
        return self._meter.total.metrics()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything that continuing needs, as flat named tensors."""
        state = {f"model.{k}": v for k, v in self.network.state_dict().items()}
        for index, values in self.optimiser.state_dict()["state"].items():
            for key, value in values.items():
                state[f"optimiser.{index}.{key}"] = torch.as_tensor(value)
        if self._average is not None:
            state |= {f"ema.{k}": v for k, v in self.model.state_dict().items()}
            state["ema_updates"] = torch.tensor(self._average.updates)
        for name, figure in self.cost_metrics().items():
            state[name] = torch.tensor(figure, dtype=torch.float64)
        return {k: v.detach().cpu().contiguous() for k, v in state.items()}

    def load(
        self,
        tensors: Mapping[str, torch.Tensor],
        epochs_done: int,
        cost: Mapping[str, float] | None = None,
    ) -> None:
        """Continue from `tensors()` of an earlier process.

        Args:
            cost: `cost_metrics()` of later than the tensors, where an evaluation came between.
        """
        self.network.load_state_dict(_below(tensors, "model."))
        if self._average is not None:
            self.model.load_state_dict(_below(tensors, "ema."))
            self._average.updates = int(tensors["ema_updates"])
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimiser."):
                _, index, key = name.split(".", 2)
                state.setdefault(int(index), {})[key] = value
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        self.epochs_done = epochs_done
        stored = {k: v.item() for k, v in tensors.items() if k.startswith("cost.")}
        self._meter.total = Cost.from_metrics(stored if cost is None else cost)

    @property
    def _on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._on_gpu)

    def _objective(self, level: Level) -> _Objective:
        config = level.scaled(self.config)
        method = METHODS[config["method"]](config, self.manifest)
        return _Objective(method, from_config(config))

    def _start_from(self, file: Path) -> None:
        """Where training begins, and only there: a model that is judged needs the file no more."""
        load_encoder(self.network, file)
        if self._average is not None:
            self._average = Average(self.network, self._recipe.ema)

    def _batches(self, samples: Stream) -> Iterator[tuple[Batch, float]]:
        """Of the epoch that comes next, corrupted, as far as its level goes."""
        return samples.epoch(
            self.config["batch_size"],
            seed=self.config["seed"],
            epoch=self.epochs_done,
            rank=self.rank.index,
            world=self.rank.world,
            transform=self._transform,
            epochs=self.config["epochs"],
            share=lambda epoch: self.levels.training(epoch).data,
        )

    def _attack(
        self,
        method: Method,
        plan: EvaluationPlan,
        spent: Cost,
        level: Level,
        batch: Batch,
        epsilon: float,
        start: Tensor | None,
    ) -> Batch:
        """The evaluation's attack, on the predicted scores: the same for every method."""
        attack = self._adversary(method, plan)
        seeds = draw_seeds(batch.sample_id, "attack")
        worse = attack(batch, self._radius(epsilon, level), seeds, start)
        spent.attack_gradients += attack.gradients
        return worse

    def _radius(self, epsilon: float, level: Level) -> float:
        """ε for images of the level's size: a change of the same height for each pixel."""
        full = self.manifest.image_shape[1:]
        if self.plan.norm == "linf" or level.size(full) == tuple(full):
            return epsilon
        return epsilon * math.sqrt(math.prod(level.size(full)) / math.prod(full))

    def _adversary(
        self, method: Method, plan: EvaluationPlan, attack: str | None = None
    ) -> Ensemble | Single:
        return adversary(
            attack or plan.attack,
            method,
            self.model,
            steps=plan.attack_steps,
            restarts=plan.restarts,
            norm=plan.norm,
        )

    def _moved(self, batch: Batch, level: Level) -> Batch:
        """On the device, images at the level's size."""
        batch = resized(batch.to(self.device), level)
        if self._on_gpu and batch.image.ndim == 4:
            batch = batch.with_image(batch.image.contiguous(memory_format=torch.channels_last))
        return batch

    def _seed(self, *salt: int | str) -> torch.Tensor:
        return draw_seeds((str(self.config["seed"]),), "trial", *salt)[0]

    def _step(
        self,
        objective: _Objective,
        batch: Batch,
        weight: float,
        progress: Progress,
        step: int,
        spent: Cost,
    ) -> dict[str, torch.Tensor | float]:
        """One optimiser step; this rank's sums over rows of the losses, and its attacked rows."""
        method, regime = objective
        seeds = draw_seeds(batch.sample_id, "regime", self.config["seed"], self.epochs_done)
        with self._autocast():
            chosen = regime(method, self.network, batch, seeds=seeds, step=step)
            loss = method.loss(self._synchronised, chosen.batch, progress)
        total = self._recipe.weighted(loss.total, loss.per_sample, chosen.batch.label)
        self._recipe.set_rates(self.optimiser, progress)
        self.optimiser.zero_grad(set_to_none=True)
        (total * weight).backward()
        self.optimiser.step()
        if self._average is not None:
            self._average.update(self.network)
        rows = len(batch)
        spent.images += rows
        spent.gradients += rows
        spent.attack_gradients += chosen.gradients
        sums = {name: part * rows for name, part in loss.parts.items()}
        return {"loss": loss.total.detach() * rows, **sums, "attacked_rows": len(chosen.rows)}

    def _summarise(self, totals: dict[str, torch.Tensor], spent: Cost) -> dict[str, float]:
        names = sorted(totals)
        summed = self.rank.reduce(torch.stack([totals[name] for name in names]))
        values = dict(zip(names, summed.tolist(), strict=True))
        rows = spent.images
        counts = {
            "train.attacked_share": values.pop("attacked_rows") / rows,
            "train.attack_gradients": spent.attack_gradients,
        }
        means = {f"train.{name}": value / rows for name, value in values.items()}
        if not math.isfinite(means["train.loss"]):
            raise Diverged(
                f"diverged: the training loss is {means['train.loss']} in epoch {self.epochs_done}"
            )
        return {**means, **counts, "train.seconds": spent.seconds}


def _in_turn(transforms: Sequence[Transform], batch: Batch, epoch: int) -> Batch:
    for transform in transforms:
        batch = transform(batch, epoch)
    return batch


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def resized(batch: Batch, level: Level) -> Batch:
    """The batch with images and masks at the level's size; masks stay 0 or 1."""
    if level.image_size == 1:
        return batch
    more = {name: _smaller(image, level) for name, image in batch.more_images.items()}
    mask = batch.mask
    if mask is not None:
        mask = F.interpolate(mask, level.size(mask.shape[2:]), mode="nearest-exact")
    return dataclasses.replace(
        batch, image=_smaller(batch.image, level), mask=mask, more_images=more
    )


def _smaller(image: Tensor, level: Level) -> Tensor:
    """(B, C, *spatial), antialiased; data without images, (B, 0), stay as they are."""
    size = level.size(image.shape[2:])
    if image.ndim == 4:
        return F.interpolate(image, size, mode="bilinear", antialias=True)
    # In three dimensions the mean is the only antialiasing filter that torch has.
    return F.interpolate(image, size, mode="area") if size else image


def merge_ranks(evaluation: Evaluation, rank: Rank) -> Evaluation:
    """All ranks' parts of an evaluation, merged in rank order."""
    if rank.world == 1:
        return evaluation
    parts: list[Any] = [None] * rank.world
    torch.distributed.all_gather_object(parts, evaluation.state_dict())
    merged = Evaluation.from_state_dict(parts[0])
    for part in parts[1:]:
        merged.merge(Evaluation.from_state_dict(part))
    return merged
