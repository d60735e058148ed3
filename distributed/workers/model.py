"""A trained model: a network and the method that interprets its output.

It predicts, is attacked and evaluated, and loads from a run folder in one call.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trustsweep.data_pipelines.corruptions.seeds import draw_seeds
from trustsweep.data_pipelines.corruptions.suite import corrupt
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Batch, Manifest, Split
from trustsweep.data_pipelines.streams import Stream
from trustsweep.distributed.run.checkpoints import finished_card, load_model
from trustsweep.distributed.run.folder import Run
from trustsweep.distributed.workers.cost import Cost
from trustsweep.distributed.workers.fidelity import FULL, Level, portion
from trustsweep.distributed.workers.temperature import Scaled, fit_temperature
from trustsweep.trainables.attacks import adversary
from trustsweep.trainables.attacks.engine import frozen
from trustsweep.trainables.attacks.ensemble import Ensemble, Single, left_out, settings
from trustsweep.trainables.attacks.masking import Effort, Masking, masking
from trustsweep.trainables.contract import Method, Prediction
from trustsweep.trainables.evaluation import Evaluation, EvaluationPlan, evaluate, panel
from trustsweep.trainables.metrics.prior import Prior
from trustsweep.trainables.registry import METHODS
from trustsweep.trainables.sample_scores import SampleScores


class Model:
    """A network with the method that interprets its output.

    Args:
        config: A trial's parameters; `config["method"]` names the method.
        manifest: The data that it is of.
        plan: What it is evaluated under; clean images alone if left out.
        network: Of the method; a freshly initialised one if left out.
        prior: What the trivial predictors know of the train split; see `Evaluation`.

    Raises:
        UserError: for a config that the method cannot use.

    Load a model of a run and predict a few images:

        model = Model.load("runs/quick", "1f3a9c")
        prediction = model.predict(torch.rand(4, *model.manifest.image_shape))
        prediction.probability, prediction.uncertainty["entropy"]
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        manifest: Manifest,
        plan: EvaluationPlan | None = None,
        *,
        network: nn.Module | None = None,
        device: torch.device | str = "cpu",
        prior: Prior | None = None,
    ) -> None:
        self.config = dict(config)
        self.manifest = manifest
        self.plan = plan or EvaluationPlan()
        self.prior = prior
        self.device = torch.device(device)
        self.method: Method = METHODS[config["method"]](self.config, manifest)
        self.network: nn.Module = (network or self.method.network()).to(self.device)
        if self.on_gpu and manifest.spatial_dims == 2:
            # torch's annotations leave out what its documentation has.
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def load(cls, run: Run | Path | str, trial: str, *, device: torch.device | str = "cpu") -> Self:
        """The model that a trial of a run ended with.

        Args:
            run: Its folder.
            trial: The trial's id, or its first letters where no other begins so.

        Raises:
            UserError: for a folder that is no run, a trial that is not there, or of which no model
                was kept.
        """
        run = run if isinstance(run, Run) else Run.open(Path(run))
        matches = [record for record in run.trials if record.id.startswith(trial)]
        if len(matches) != 1:
            several = ", ".join(record.id for record in matches)
            raise UserError(
                f"{run.path}: {'trials ' + several + ' begin' if matches else 'no trial begins'} "
                f"with {trial!r}. trials.csv lists them."
            )
        (record,) = matches
        folder = run.checkpoints / record.id
        if finished_card(folder) is None:
            raise UserError(
                f"{folder}: no model of trial {record.id} here; one that failed or was stopped "
                "leaves none."
            )
        model = cls(record.config, run.manifest, run.plan, device=device)
        load_model(folder, model.network)
        return model

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def autocast(self) -> torch.autocast:
        """bfloat16 on a GPU; nothing elsewhere."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.on_gpu)

    def predict(self, images: Batch | Tensor | np.ndarray) -> Prediction:
        """The prediction for a batch, or for images (B, C, *spatial) in [0, 1].

        Raises:
            ValueError: for images of another shape than the manifest's, or outside [0, 1].
        """
        if not isinstance(images, Batch):
            images = self._batch(torch.as_tensor(images))
        with frozen(self.network), torch.inference_mode(), self.autocast():
            return self.method.predict(self.network, self.moved(images))

    def attack(
        self,
        batch: Batch,
        epsilon: float,
        attack: str | None = None,
        *,
        start: Tensor | None = None,
    ) -> Batch:
        """The batch, on the model's device, with the worst images that the attack finds within ε.

        Args:
            batch: With its truth.
            epsilon: By the plan's norm, on [0, 1].
            attack: Instead of the plan's: one of `ATTACKS`, or "fast" or "full".
            start: The worst images within a smaller ε.
        """
        plan = dataclasses.replace(self.plan, attack=attack or self.plan.attack)
        with self.autocast():
            moved = self.moved(batch)
            return self._attacked(self.method, plan, FULL, Cost(), moved, epsilon, start)

    def evaluate(
        self,
        samples: Stream,
        level: Level = FULL,
        *,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        scores: SampleScores | None = None,
        attack: str | None = None,
        attacked_alone: bool = False,
        temperature: float = 1.0,
        split: Split | None = None,
        method: Method | None = None,
        spent: Cost | None = None,
    ) -> Evaluation:
        """One rank's part of an evaluation; merge the ranks' parts before computing.

        Args:
            samples: The split to evaluate on.
            level: `FULL`, `CLEAN`, or that of a rung, `Levels.evaluation(rung)`. Corruptions are
                of images at the level's size.
            batch_size: Of each rank.
            rank, world: Which part, of how many.
            scores: Collects the scores of each sample of this rank.
            attack: Instead of the plan's.
            attacked_alone: Leaves out every condition of the plan but clean and attacked images.
            temperature: Scores are divided by it; see `trustsweep.distributed.workers.temperature`.
            split: See `evaluation.evaluate`.
            method: Instead of the model's: that of a level with other parameters.
            spent: Counts the gradients of the attacks.
        """
        plan = self.plan.clean() if level.clean else self.plan
        plan = dataclasses.replace(
            plan,
            attack=attack or plan.attack,
            attack_steps=portion(plan.attack_steps, level.evaluation_steps),
        )
        if attacked_alone:
            plan = dataclasses.replace(plan, corruptions=(), conditions=(), sites=False)
        method = method or self.method
        if temperature != 1:
            method = Scaled(method, temperature)
        batches = samples.sweep(batch_size, rank, world, level.validation)
        with self.autocast():
            return evaluate(
                method,
                self.network,
                (self.moved(batch, level) for batch in batches),
                plan,
                corrupt=partial(corrupt, manifest=self.manifest, suite=plan.suite),
                attack=partial(self._attacked, method, plan, level, spent or Cost()),
                scores=scores,
                prior=self.prior,
                split=split,
            )

    def fit_temperature(self, samples: Stream, batch_size: int) -> float:
        """T of the least NLL on clean samples; see `temperature.fit_temperature`."""
        batches = (self.moved(batch) for batch in samples.sweep(batch_size))
        with self.autocast():
            return fit_temperature(self.method, self.network, batches)

    def panel(self, batch: Batch, epsilon: float) -> dict[str, np.ndarray]:
        """Arrays of a few images for the report, clean and attacked; see `evaluation.panel`."""
        attack = partial(self._attacked, self.method, self.plan, FULL, Cost())
        with self.autocast():
            return panel(self.method, self.network, self.moved(batch), attack, epsilon)

    def adversary(
        self,
        attack: str | None = None,
        method: Method | None = None,
        plan: EvaluationPlan | None = None,
    ) -> Ensemble | Single:
        """The plan's attack on this model, or another, on the predicted scores: the same for every
        method."""
        plan = plan or self.plan
        return adversary(
            attack or plan.attack,
            method or self.method,
            self.network,
            steps=plan.attack_steps,
            restarts=plan.restarts,
            norm=plan.norm,
        )

    def attack_settings(self, attack: str | None = None) -> list[dict[str, Any]]:
        """The members of the plan's attack, or of another; see `ensemble.settings`."""
        return settings(self.adversary(attack))

    def attacks_left_out(self) -> list[str]:
        """See `ensemble.left_out`."""
        return left_out(self.method, self.plan.norm)

    def masking(
        self, batch: Batch, epsilon: float, effort: Effort, *, batch_size: int | None = None
    ) -> Masking:
        """Signs of gradient masking on some samples; see `masking.masking`."""
        with self.autocast():
            return masking(
                self.method,
                self.network,
                self.moved(batch),
                epsilon,
                seeds=draw_seeds(batch.sample_id, "masking"),
                norm=self.plan.norm,
                effort=effort,
                batch_size=batch_size,
            )

    def moved(self, batch: Batch, level: Level = FULL) -> Batch:
        """On the model's device, images at the level's size."""
        batch = resized(batch.to(self.device), level)
        if self.on_gpu and batch.image.ndim == 4:
            batch = batch.with_image(batch.image.contiguous(memory_format=torch.channels_last))
        return batch

    def _attacked(
        self,
        method: Method,
        plan: EvaluationPlan,
        level: Level,
        spent: Cost,
        batch: Batch,
        epsilon: float,
        start: Tensor | None,
    ) -> Batch:
        attack = self.adversary(None, method, plan)
        seeds = draw_seeds(batch.sample_id, "attack")
        attacked = attack(batch, self._radius(epsilon, level), seeds, start)
        spent.attack_gradients += attack.gradients
        return attacked

    def _radius(self, epsilon: float, level: Level) -> float:
        """ε for images of the level's size: a change of the same height for each pixel."""
        full = self.manifest.image_shape[1:]
        if self.plan.norm == "linf" or level.size(full) == tuple(full):
            return epsilon
        return epsilon * math.sqrt(math.prod(level.size(full)) / math.prod(full))

    def _batch(self, images: Tensor) -> Batch:
        shape = self.manifest.image_shape
        if tuple(images.shape[1:]) != tuple(shape):
            raise ValueError(
                f"images {tuple(images.shape)}; this model is of (B, {', '.join(map(str, shape))})"
            )
        images = images.float()
        if not bool(((images >= 0) & (images <= 1)).all()):
            raise ValueError("images outside [0, 1]; scale them as the training data were")
        return Batch(sample_id=tuple(map(str, range(len(images)))), image=images)


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
