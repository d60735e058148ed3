"""One trial on one rank: epochs, evaluations and checkpoints, without knowing of Ray.

Everything random is derived from (seed, epoch, rank) or from (seed, epoch, sample_id), never from
what ran before in the process: the same config gives the same figures in a fresh slot, after
other trials, and after a restart from a checkpoint.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from data_pipelines.corruptions.seeds import draw_seeds
from data_pipelines.corruptions.suite import TrainingCorruption, corrupt
from data_pipelines.schema import Batch, Manifest
from data_pipelines.streams import Stream
from trainables.attacks import PredictionVictim, make_attack
from trainables.contract import Progress
from trainables.evaluation import Evaluation, EvaluationPlan, evaluate, panel
from trainables.regimes import from_config
from trainables.registry import TRAINABLES


class Diverged(RuntimeError):
    """The training loss stopped being a number; the message says where."""


@dataclass(frozen=True)
class Rank:
    """This process among the workers of a slot."""

    index: int = 0
    world: int = 1

    def reduce(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks."""
        if self.world > 1:
            torch.distributed.all_reduce(values)
        return values


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
    ) -> None:
        """Raises `UserError` for a config that the trainable or the regime cannot use."""
        self.config = dict(config)
        self.plan = plan
        self.rank = rank or Rank()
        self.device = torch.device(device)
        torch.manual_seed(int(self._seed("init")))
        self.trainable = TRAINABLES[config["trainable"]](config, manifest)
        self.network: nn.Module = self.trainable.network().to(self.device)
        if self._on_gpu and manifest.spatial_dims == 2:
            self.network = self.network.to(memory_format=torch.channels_last)
        self.regime = from_config(config)
        self.corruption = TrainingCorruption(
            plan.corruptions,
            config["corruption_share"],
            config["seed"],
            manifest=manifest,
            suite=plan.suite,
        )
        self._corrupt = partial(corrupt, manifest=manifest, suite=plan.suite)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(),
            lr=config["learning_rate"],
            weight_decay=config["weight_decay"],
            foreach=True,
        )
        self.epochs_done = 0
        # Gradients are averaged through this wrapper; attacks and evaluation use the bare network,
        # as differentiating with respect to images would upset the wrapper's reducer.
        self._synchronised: nn.Module = self.network
        if self.rank.world > 1:
            ids = [self.device] if self._on_gpu else None
            self._synchronised = DistributedDataParallel(self.network, device_ids=ids)

    def epoch(self, samples: Stream) -> dict[str, float]:
        """Train one epoch. Returns its mean losses, counts and seconds.

        Raises `Diverged` on every rank alike when the loss is not finite.
        """
        started = time.perf_counter()
        index, seed = self.epochs_done, self.config["seed"]
        torch.manual_seed(int(self._seed("epoch", index, self.rank.index)))
        batch_size = self.config["batch_size"]
        batches = samples.epoch(
            batch_size,
            seed=seed,
            epoch=index,
            rank=self.rank.index,
            world=self.rank.world,
            transform=self.corruption,
            epochs=self.config["epochs"],
        )
        steps = samples.steps(batch_size, self.rank.world)
        totals: dict[str, torch.Tensor] = {}
        self.network.train()
        for step, (batch, weight) in enumerate(batches):
            progress = Progress(index + step / steps, self.config["epochs"])
            for name, value in self._step(batch, weight, progress, step).items():
                value = torch.as_tensor(value, dtype=torch.float64, device=self.device)
                totals[name] = totals[name] + value if name in totals else value
        self.epochs_done += 1
        return self._summarise(totals, time.perf_counter() - started)

    def evaluate(self, samples: Stream, *, full: bool, batch_size: int) -> Evaluation:
        """This rank's part of an evaluation; merge the ranks' parts before computing."""
        plan = self.plan if full else self.plan.clean()
        batches = samples.sweep(batch_size, self.rank.index, self.rank.world)
        with self._autocast():
            return evaluate(
                self.trainable,
                self.network,
                (self._moved(batch) for batch in batches),
                plan,
                corrupt=self._corrupt,
                attack=self._attack,
            )

    def panel(self, batch: Batch, epsilon: float) -> dict[str, np.ndarray]:
        """What the report shows of some images, clean and attacked; see `evaluation.panel`."""
        with self._autocast():
            return panel(self.trainable, self.network, self._moved(batch), self._attack, epsilon)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything that continuing needs, as flat named tensors."""
        state = {f"model.{k}": v for k, v in self.network.state_dict().items()}
        for index, values in self.optimiser.state_dict()["state"].items():
            for key, value in values.items():
                state[f"optimiser.{index}.{key}"] = torch.as_tensor(value)
        return {k: v.detach().cpu().contiguous() for k, v in state.items()}

    def load(self, tensors: Mapping[str, torch.Tensor], epochs_done: int) -> None:
        """Continue from `tensors()` of an earlier process."""
        model = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        self.network.load_state_dict(model)
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimiser."):
                _, index, key = name.split(".", 2)
                state.setdefault(int(index), {})[key] = value
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        self.epochs_done = epochs_done

    @property
    def _on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._on_gpu)

    def _attack(self, batch: Batch, epsilon: float) -> Batch:
        """The evaluation's attack: against the predicted probability, the same for every method."""
        plan = self.plan
        attack = make_attack(plan.attack, steps=plan.attack_steps, restarts=plan.restarts)
        victim = PredictionVictim(self.trainable, self.network)
        return attack(victim, batch, epsilon, seeds=draw_seeds(batch.sample_id, "attack"))

    def _moved(self, batch: Batch) -> Batch:
        batch = batch.to(self.device)
        if self._on_gpu and batch.image.ndim == 4:
            batch = batch.with_image(batch.image.contiguous(memory_format=torch.channels_last))
        return batch

    def _seed(self, *salt: int | str) -> torch.Tensor:
        return draw_seeds((str(self.config["seed"]),), "trial", *salt)[0]

    def _step(
        self, batch: Batch, weight: float, progress: Progress, step: int
    ) -> dict[str, torch.Tensor | float]:
        """One optimiser step; sums over this rank's rows of the losses and counts."""
        batch = self._moved(batch)
        seeds = draw_seeds(batch.sample_id, "regime", self.config["seed"], self.epochs_done)
        with self._autocast():
            chosen = self.regime(
                self.trainable, self.network, batch, progress, seeds=seeds, step=step
            )
            loss = self.trainable.loss(self._synchronised, chosen.batch, progress)
        for group in self.optimiser.param_groups:
            group["lr"] = self.config["learning_rate"] * _cosine(progress)
        self.optimiser.zero_grad(set_to_none=True)
        (loss.total * weight).backward()
        self.optimiser.step()
        rows = len(batch)
        sums = {name: part * rows for name, part in loss.parts.items()}
        counts = {
            "rows": rows,
            "attacked_rows": len(chosen.rows),
            "attack_gradients": chosen.gradients,
        }
        return {"loss": loss.total.detach() * rows, **sums, **counts}

    def _summarise(self, totals: dict[str, torch.Tensor], seconds: float) -> dict[str, float]:
        names = sorted(totals)
        summed = self.rank.reduce(torch.stack([totals[name] for name in names]))
        values = dict(zip(names, summed.tolist(), strict=True))
        rows = values.pop("rows")
        counts = {
            "train.attacked_share": values.pop("attacked_rows") / rows,
            "train.attack_gradients": values.pop("attack_gradients"),
        }
        means = {f"train.{name}": value / rows for name, value in values.items()}
        if not math.isfinite(means["train.loss"]):
            raise Diverged(
                f"diverged: the training loss is {means['train.loss']} in epoch {self.epochs_done}"
            )
        return {**means, **counts, "train.seconds": seconds}


def _cosine(progress: Progress) -> float:
    """Cosine annealing to zero over the whole training (Loshchilov & Hutter, 1608.03983)."""
    return 0.5 * (1 + math.cos(math.pi * progress.epoch / progress.epochs))


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
