"""The one engine behind every attack: any number of dimensions, any loss, ε per sample.

Gradient ascent inside an L∞ or L2 ball, with the arithmetic of torchattacks 3.5.1 step by step, so
that results are equal to it on the same seed (tested) where the two overlap. What torchattacks
lacks is ours: ε per sample, rows of a batch, dense targets everywhere, restarts, module modes left
as found, and starts that depend on a sample's seed alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Batch
from trustsweep.trainables.attacks.victims import Victim
from trustsweep.trainables.registry import Norm

#: Keeps a direction of length 0 from being divided by 0, as torchattacks has it.
_TINY = 1e-12


class Attack(ABC):
    """Perturbs images inside the ball ‖x' − x‖ <= ε and the range [0, 1].

    The bounds hold to the rounding of one addition (6e-8 in float32). A gradient that is not a
    number moves nothing; the result stays in the ball.

    With one restart attacks other than APGD return the last iterate, as the papers define them: it
    may by chance cost less than the clean image. With several, the costliest of their ends and of
    the clean image is kept for each sample, so more restarts never do less harm.

    Args:
        steps: Gradient steps; attacks of a single step ignore it.
        step_size: In the unit of ε; None for the attack's own default.
        restarts: Random starts; attacks that start at the image ignore it.
        norm: "linf", ε the most that a pixel may change; or "l2", ε the length of the change of a
            whole image.
        draws: Gradients averaged for each step (expectation over transformation, Athalye et al.
            2018, arXiv 1802.00420), for methods whose every prediction is another draw.
    """

    #: Whether `steps` and `step_size` mean something to it.
    iterative: ClassVar[bool] = True
    #: Whether it uses gradients, or predictions alone.
    follows_gradients: ClassVar[bool] = True
    #: What `norm` may be.
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")

    def __init__(
        self,
        *,
        steps: int,
        step_size: float | None = None,
        restarts: int = 1,
        norm: Norm = "linf",
        draws: int = 1,
    ) -> None:
        """Raises `UserError` for fewer than one step, restart or draw, and an impossible norm."""
        if steps < 1 or restarts < 1 or draws < 1:
            raise UserError(
                f"attack: steps ({steps}), restarts ({restarts}) and draws ({draws}) start at 1."
            )
        if step_size is not None and not step_size > 0:
            raise UserError(f"attack: the step size must be above 0, not {step_size}.")
        if norm not in self.norms:
            raise UserError(
                f"attack: the norm {norm!r} is not possible here; choose {', '.join(self.norms)}."
            )
        self.steps = steps
        self.restarts = restarts
        self.norm = norm
        self.draws = draws
        self._step_size = step_size

    @property
    def gradients(self) -> int:
        """Gradient evaluations for each attacked sample."""
        return self.steps * self.restarts * self.draws

    def __call__(
        self,
        victim: Victim,
        batch: Batch,
        epsilon: float | Tensor,
        rows: Sequence[int] | None = None,
        seeds: Tensor | None = None,
        start: Tensor | None = None,
    ) -> Batch:
        """The batch with the images at `rows` perturbed; the others are not even computed.

        Works whatever the grad, inference or autocast mode around it, leaves every module's mode,
        `requires_grad` and `.grad` as found, and runs the network in evaluation mode.

        Args:
            epsilon: Radius on the [0, 1] scale, one or (B,). Rows with 0 stay as they are.
            rows: Indices into the batch; None for all.
            seeds: (B,) integers: a sample's start then depends on its seed alone, whatever else is
                in the batch. None draws from the global generator of the image's device.
            start: Images like the batch's to begin the (first) ascent at, brought into the ball
                first; None for the attack's own start.
        """
        radius = torch.as_tensor(epsilon, dtype=torch.float32, device="cpu").expand(len(batch))
        if not bool(((radius >= 0) & (radius <= _largest(batch.image, self.norm))).all()):
            raise UserError(
                f"attack: ε lies in [0, 1] on the pixel scale (of l2: times the root of how many "
                f"pixels there are), not {epsilon}."
            )
        chosen = [i for i in (range(len(batch)) if rows is None else rows) if radius[i] > 0]
        if not chosen:
            return batch
        with torch.inference_mode(False), torch.enable_grad(), frozen(victim.network):
            # Selecting copies: tensors made under inference mode cannot take part in a gradient.
            part = batch.select(chosen)
            ball = Ball(part.image, wide(radius[chosen].to(part.image), part.image), self.norm)
            draws = Draws(part.image, None if seeds is None else seeds[chosen])
            begin = None if start is None else ball.project(start[chosen].to(part.image))
            image = batch.image.detach().clone()
            image[chosen] = self._worst(victim, part, ball, draws, begin)
        return batch.with_image(image)

    @abstractmethod
    def start(self, ball: Ball, draws: Draws) -> Tensor:
        """Where the ascent begins, in the ball."""

    @abstractmethod
    def default_step_size(self, epsilon: Tensor) -> Tensor:
        """The step size if none is given."""

    def selection_score(self, victim: Victim, batch: Batch) -> Tensor:
        """(B,): the value that picks the best restart."""
        with torch.no_grad():
            return victim.loss(batch)

    def objective(self, victim: Victim, batch: Batch, step: int) -> Tensor:
        """(B,): the objective to maximise at `step`, counted from 0."""
        return victim.loss(batch)

    def _worst(
        self, victim: Victim, batch: Batch, ball: Ball, draws: Draws, begin: Tensor | None
    ) -> Tensor:
        if self.restarts == 1:
            return self._ascend(victim, batch, ball, draws, begin)
        worst = batch.image
        highest = self.selection_score(victim, batch)
        for restart in range(self.restarts):
            end = self._ascend(victim, batch, ball, draws, None if restart else begin)
            figure = self.selection_score(victim, batch.with_image(end))
            higher = figure > highest  # never true of NaN
            worst = torch.where(wide(higher, worst), end, worst)
            highest = torch.where(higher, figure, highest)
        return worst

    def _ascend(
        self, victim: Victim, batch: Batch, ball: Ball, draws: Draws, begin: Tensor | None
    ) -> Tensor:
        size = self.default_step_size(ball.epsilon) if self._step_size is None else self._step_size
        image = self.start(ball, draws).clamp(0, 1) if begin is None else begin
        for step in range(self.steps):

            def raised(at: Batch, step: int = step) -> Tensor:
                return self.objective(victim, at, step)

            gradient = self._gradient(raised, batch, image)
            image = ball.project(image + size * ball.direction(gradient))
        return image

    def _gradient(self, raised: Callable[[Batch], Tensor], batch: Batch, image: Tensor) -> Tensor:
        """Of the (B,) that are raised, at `image`; the mean over `draws`."""
        total = torch.zeros_like(image)
        for _ in range(self.draws):
            at = image.detach().requires_grad_()
            # The sum, not the mean: each sample's gradient is then its own, whatever the batch.
            (gradient,) = torch.autograd.grad(raised(batch.with_image(at)).sum(), at)
            total = total + gradient
        return total / self.draws


@dataclass(frozen=True)
class Ball:
    """The images that an attack may choose among, of B samples at once.

    Attributes:
        clean: (B, ...) the centre, in [0, 1].
        epsilon: (B, 1, ...) the radius.
    """

    clean: Tensor
    epsilon: Tensor
    norm: Norm

    def project(self, image: Tensor) -> Tensor:
        """The nearest images in the ball, then in [0, 1]."""
        change = image - self.clean
        if self.norm == "linf":
            change = torch.clamp(change, -self.epsilon, self.epsilon)
        else:
            size = length(change)
            change = change / (size + _TINY) * torch.minimum(self.epsilon, size)
        return (self.clean + change).clamp(0, 1)

    def direction(self, gradient: Tensor) -> Tensor:
        """The steepest change of size 1; 0 where the gradient is NaN."""
        if self.norm == "linf":
            return gradient.sign()
        return (gradient / (length(gradient) + _TINY)).nan_to_num(0.0, 0.0, 0.0)


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
        return self.numbers(*self._image.shape[1:])

    def numbers(self, *shape: int, shared: bool = False) -> Tensor:
        """(B, *shape) of [0, 1); with `shared` (1, *shape) for all where none has its own seed."""
        if self._generators is None:
            size = 1 if shared else len(self._image)
            return torch.rand((size, *shape), dtype=self._image.dtype, device=self._image.device)
        return torch.stack([torch.rand(shape, generator=g) for g in self._generators]).to(
            self._image
        )

    def normal(self) -> Tensor:
        """Standard normal."""
        if self._generators is None:
            return torch.randn_like(self._image)
        shape = self._image.shape[1:]
        return torch.stack([torch.randn(shape, generator=g) for g in self._generators]).to(
            self._image
        )

    def signs(self) -> Tensor:
        """−1 or 1, of a normal variate's sign."""
        return self.normal().sign()


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


def length(change: Tensor) -> Tensor:
    """(B, 1, ...): the Euclidean norm of each sample's change."""
    return wide(change.flatten(1).square().sum(1).sqrt(), change)


def wide(values: Tensor, image: Tensor) -> Tensor:
    """(B,) to (B, 1, ...), to stand beside images."""
    return values.view(-1, *([1] * (image.ndim - 1)))


def _largest(image: Tensor, norm: Norm) -> float:
    """The distance of the two images that lie farthest apart in [0, 1], and room for rounding."""
    return 1.0 if norm == "linf" else math.sqrt(image[:1].numel()) * (1 + 1e-6)
