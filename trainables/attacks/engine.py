"""The one engine behind every attack: any number of dimensions, any loss, ε per sample.

Signed gradient ascent inside the L∞ ball, with the arithmetic of torchattacks 3.5.1 step by step,
so that results are equal to it on the same seed (tested) where the two overlap. What torchattacks
lacks is ours: ε per sample, rows of a batch, dense targets everywhere, restarts, module modes left
as found, and starts that depend on a sample's seed alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor, nn

from data_pipelines.errors import UserError
from data_pipelines.schema import Batch
from trainables.attacks.victims import Victim


class Attack(ABC):
    """Perturbs images inside the ball ‖x' − x‖∞ <= ε and the range [0, 1].

    The bounds hold to the rounding of one addition (6e-8 in float32). A gradient that is not a
    number moves nothing; the result stays in the ball.

    With one restart the last iterate is returned, as the papers define the attacks: it may by
    chance cost less than the clean image. With several, the costliest of their ends and of the
    clean image is kept for each sample, so more restarts never do less harm.

    Args:
        steps: Gradient steps; attacks of a single step take one whatever is asked.
        step_size: On the [0, 1] scale; None for the attack's own default.
        restarts: Random starts; attacks that start at the image take one whatever is asked.
    """

    #: Whether `steps` and `step_size` mean something to it.
    iterative: ClassVar[bool] = True

    def __init__(self, *, steps: int, step_size: float | None = None, restarts: int = 1) -> None:
        """Raises `UserError` for fewer than one step or restart, or a step size not above 0."""
        if steps < 1 or restarts < 1:
            raise UserError(f"attack: steps ({steps}) and restarts ({restarts}) start at 1.")
        if step_size is not None and not step_size > 0:
            raise UserError(f"attack: the step size must be above 0, not {step_size}.")
        self.steps = steps
        self.restarts = restarts
        self._step_size = step_size

    @property
    def gradients(self) -> int:
        """Gradient evaluations for each attacked sample."""
        return self.steps * self.restarts

    def __call__(
        self,
        victim: Victim,
        batch: Batch,
        epsilon: float | Tensor,
        rows: Sequence[int] | None = None,
        seeds: Tensor | None = None,
    ) -> Batch:
        """The batch with the images at `rows` perturbed; the others are not even computed.

        Works whatever the grad, inference or autocast mode around it, leaves every module's mode,
        `requires_grad` and `.grad` as found, and runs the network in evaluation mode.

        Args:
            epsilon: Radius on the [0, 1] scale, one or (B,). Rows with 0 stay as they are.
            rows: Indices into the batch; None for all.
            seeds: (B,) integers: a sample's start then depends on its seed alone, whatever else is
                in the batch. None draws from the global generator of the image's device.
        """
        radius = torch.as_tensor(epsilon, dtype=torch.float32, device="cpu").expand(len(batch))
        if not bool(((radius >= 0) & (radius <= 1)).all()):
            raise UserError(f"attack: ε lies in [0, 1] on the pixel scale, not {epsilon}.")
        chosen = [i for i in (range(len(batch)) if rows is None else rows) if radius[i] > 0]
        if not chosen:
            return batch
        with torch.inference_mode(False), torch.enable_grad(), frozen(victim.network):
            # Selecting copies: tensors made under inference mode cannot take part in a gradient.
            part = batch.select(chosen)
            shape = (-1, *([1] * (part.image.ndim - 1)))
            ball = radius[chosen].to(part.image).view(shape)
            draws = Draws(part.image, None if seeds is None else seeds[chosen])
            attacked = self._worst(victim, part, ball, draws)
            image = batch.image.detach().clone()
            image[chosen] = attacked
        return batch.with_image(image)

    @abstractmethod
    def start(self, image: Tensor, epsilon: Tensor, draws: Draws) -> Tensor:
        """Where the ascent begins, in the ball; `epsilon` is (B, 1, ...)."""

    @abstractmethod
    def default_step_size(self, epsilon: Tensor) -> Tensor:
        """The step where none was asked for."""

    def objective(self, victim: Victim, batch: Batch, step: int) -> Tensor:
        """(B,): what is raised at `step`, counted from 0."""
        return victim.loss(batch)

    def _worst(self, victim: Victim, batch: Batch, epsilon: Tensor, draws: Draws) -> Tensor:
        if self.restarts == 1:
            return self._ascend(victim, batch, epsilon, draws)
        worst = batch.image
        highest = _loss(victim, batch)
        for _ in range(self.restarts):
            end = self._ascend(victim, batch, epsilon, draws)
            loss = _loss(victim, batch.with_image(end))
            higher = loss > highest  # never true of NaN
            worst = torch.where(higher.view_as(epsilon), end, worst)
            highest = torch.where(higher, loss, highest)
        return worst

    def _ascend(self, victim: Victim, batch: Batch, epsilon: Tensor, draws: Draws) -> Tensor:
        clean = batch.image
        size = self.default_step_size(epsilon) if self._step_size is None else self._step_size
        image = self.start(clean, epsilon, draws).clamp(0, 1)
        for step in range(self.steps):
            image = image.detach().requires_grad_()
            objective = self.objective(victim, batch.with_image(image), step)
            # The sum, not the mean: each sample's gradient is then its own, whatever the batch.
            (gradient,) = torch.autograd.grad(objective.sum(), image)
            image = image.detach() + size * gradient.sign()  # 0 where it is NaN
            image = (clean + torch.clamp(image - clean, -epsilon, epsilon)).clamp(0, 1)
        return image


class Draws:
    """Random numbers in the shape of the images: global, or each sample's own."""

    def __init__(self, image: Tensor, seeds: Tensor | None) -> None:
        self._image = image
        # On the CPU, so that a start is the same on every device.
        self._generators = (
            None if seeds is None else [torch.Generator().manual_seed(s) for s in seeds.tolist()]
        )

    def uniform(self) -> Tensor:
        """Of [0, 1)."""
        if self._generators is None:
            return torch.rand_like(self._image)
        shape = self._image.shape[1:]
        return torch.stack([torch.rand(shape, generator=g) for g in self._generators]).to(
            self._image
        )

    def signs(self) -> Tensor:
        """−1 or 1, of a normal variate's sign."""
        if self._generators is None:
            return torch.randn_like(self._image).sign()
        shape = self._image.shape[1:]
        return torch.stack([torch.randn(shape, generator=g).sign() for g in self._generators]).to(
            self._image
        )


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Evaluation mode without parameter gradients; every flag is put back one by one.

    One by one, as `network.train()` would also wake sub-modules that were frozen on purpose.
    Parameters that need no gradient let autograd drop what only their gradients would read.
    """
    training = [(module, module.training) for module in network.modules()]
    gradients = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    try:
        network.eval()
        network.requires_grad_(False)
        yield
    finally:
        for module, flag in training:
            module.training = flag
        for parameter, flag in gradients:
            parameter.requires_grad_(flag)


def _loss(victim: Victim, batch: Batch) -> Tensor:
    with torch.no_grad():
        return victim.loss(batch)
