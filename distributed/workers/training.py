"""The training of one trial on one rank: epochs and checkpoints, without knowing of Ray.

Everything random is derived from (seed, epoch, rank) or from (seed, epoch, sample_id), never from
what ran before in the process: the same config gives the same figures in a fresh slot, after
other trials, and after a restart from a checkpoint.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trustsweep.data_pipelines.augmentation import Augmentation
from trustsweep.data_pipelines.corruptions.seeds import draw_seeds
from trustsweep.data_pipelines.corruptions.suite import TrainingCorruption
from trustsweep.data_pipelines.schema import Batch, Manifest
from trustsweep.data_pipelines.streams import Stream, Transform
from trustsweep.distributed.workers.cost import Cost, Meter
from trustsweep.distributed.workers.fidelity import FULL, Level, Levels
from trustsweep.distributed.workers.model import Model
from trustsweep.distributed.workers.rank import Rank
from trustsweep.distributed.workers.recipe import Average, TrainingRecipe
from trustsweep.search_spaces.study import Fidelity, Scheduler
from trustsweep.trainables.contract import Method, Progress
from trustsweep.trainables.evaluation import Evaluation, EvaluationPlan
from trustsweep.trainables.metrics.prior import Prior
from trustsweep.trainables.networks import load_encoder
from trustsweep.trainables.regimes import Regime, from_config
from trustsweep.trainables.registry import METHODS


class Diverged(RuntimeError):
    """The training loss stopped being a number; the message says where."""


class _Procedure(NamedTuple):
    """Method and regime of a config; stateless, so made again for every level."""

    method: Method
    regime: Regime


class Training:
    """A network in training, with its optimiser, image transforms and cost meter."""

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
        self.rank = rank or Rank()
        # Without rungs there is nothing to grow towards.
        self.levels = levels or Levels(Fidelity(), Scheduler(rungs=[]), config["epochs"])
        torch.manual_seed(int(self._seed("init")))
        made = None if network is None else network()
        self._trained = Model(config, manifest, plan, network=made, device=device, prior=prior)
        self.device = self._trained.device
        self._meter = Meter(self.rank, self.device)
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
        self._recipe = TrainingRecipe(config, self._trained.method.task, prior)
        self._average = Average(self.network, self._recipe.ema) if self._recipe.ema else None
        self.epochs_done = 0
        # Gradients are averaged through this wrapper; attacks and evaluation use the bare network,
        # as differentiating with respect to images would upset the wrapper's reducer.
        self._synchronised: nn.Module = self.network
        if self.rank.world > 1:
            ids = [self.device] if self._trained.on_gpu else None
            self._synchronised = DistributedDataParallel(self.network, device_ids=ids)

    @property
    def network(self) -> nn.Module:
        """The network that the optimiser updates."""
        return self._trained.network

    @property
    def model(self) -> Model:
        """The model to evaluate and save: the network, or with `ema` its averaged weights."""
        if self._average is None:
            return self._trained
        averaged = copy.copy(self._trained)
        averaged.network = self._average.network
        return averaged

    @cached_property
    def optimiser(self) -> torch.optim.Optimizer:
        """Made on first use: torch loads its compiler with it, which takes seconds that a process
        which only evaluates can save."""
        return self._recipe.make_optimiser(self.network)

    @property
    def patience(self) -> int:
        """Epochs without a better one after which the training ends; 0 for all of them."""
        return self._recipe.patience

    def epoch(self, samples: Stream) -> dict[str, float]:
        """Train one epoch. Returns its mean losses, counts and seconds.

        Raises `Diverged` on every rank alike when the loss is not finite.
        """
        index, epochs = self.epochs_done, self.config["epochs"]
        if not index and self.config["encoder"]:
            self._start_from(Path(self.config["encoder"]))
        level = self.levels.training(index)
        procedure = self._procedure(level)
        steps = samples.steps(self.config["batch_size"], self.rank.world, level.data)
        totals: dict[str, torch.Tensor] = {}
        with self._meter.running() as spent:
            torch.manual_seed(int(self._seed("epoch", index, self.rank.index)))
            self.network.train()
            for step, (batch, weight) in enumerate(self._batches(samples)):
                progress = Progress(index + step / steps, epochs)
                batch = self._patch(procedure.method, self._trained.moved(batch, level))
                sums = self._step(procedure, batch, weight, progress, step, spent)
                for name, value in sums.items():
                    value = torch.as_tensor(value, dtype=torch.float64, device=self.device)
                    totals[name] = totals[name] + value if name in totals else value
            self.epochs_done += 1
        return self._summarise(totals, spent)

    def evaluate(self, samples: Stream, level: Level = FULL, *, batch_size: int) -> Evaluation:
        """This rank's part of an evaluation of the model, counted among the trial's costs; merge
        the ranks' parts before computing. See `Model.evaluate`."""
        with self._meter.running() as spent:
            return self.model.evaluate(
                samples,
                level,
                batch_size=batch_size,
                rank=self.rank.index,
                world=self.rank.world,
                method=self._procedure(level).method,
                spent=spent,
            )

    def cost_metrics(self) -> dict[str, float]:
        """The trial's cost so far, over all ranks and restarts, as ``cost.images``."""
        return self._meter.total.metrics()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything that continuing needs, as flat named tensors."""
        state = {f"model.{k}": v for k, v in self.network.state_dict().items()}
        for index, values in self.optimiser.state_dict()["state"].items():
            for key, value in values.items():
                state[f"optimiser.{index}.{key}"] = torch.as_tensor(value)
        if self._average is not None:
            state |= {f"ema.{k}": v for k, v in self.model.network.state_dict().items()}
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
            self.model.network.load_state_dict(_below(tensors, "ema."))
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

    def _procedure(self, level: Level) -> _Procedure:
        config = level.scaled(self.config)
        method = METHODS[config["method"]](config, self.manifest)
        method.class_weights = self._recipe.element_weights
        return _Procedure(method, from_config(config))

    def _start_from(self, file: Path) -> None:
        """Load the initial encoder. Only training does: a trained model needs no file."""
        load_encoder(self.network, file)
        if self._average is not None:
            self._average = Average(self.network, self._recipe.ema)

    def _patch(self, method: Method, batch: Batch) -> Batch:
        """One patch of each sample of the epoch that comes next, where the method takes patches."""
        if method.patches is None:
            return batch
        seeds = draw_seeds(batch.sample_id, "patch", self.config["seed"], self.epochs_done)
        return method.patches.sample(batch, seeds)

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

    def _seed(self, *salt: int | str) -> torch.Tensor:
        return draw_seeds((str(self.config["seed"]),), "trial", *salt)[0]

    def _step(
        self,
        procedure: _Procedure,
        batch: Batch,
        weight: float,
        progress: Progress,
        step: int,
        spent: Cost,
    ) -> dict[str, torch.Tensor | float]:
        """One optimiser step; this rank's sums over rows of the losses, and its attacked rows."""
        method, regime = procedure
        seeds = draw_seeds(batch.sample_id, "regime", self.config["seed"], self.epochs_done)
        with self._trained.autocast():
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
