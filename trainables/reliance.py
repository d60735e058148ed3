"""How a model weighs modalities of unequal quality."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from trustsweep.data_pipelines.schema import Batch
from trustsweep.trainables.attacks.engine import frozen
from trustsweep.trainables.contract import Method
from trustsweep.trainables.fusion.inputs import observed
from trustsweep.trainables.metrics.base import uncertainty_map
from trustsweep.trainables.metrics.reliance import Reliance


def reliance(method: Method, network: nn.Module, batches: Iterable[Batch]) -> Reliance:
    """Weights against severities, over batches that were corrupted modality by modality.

    A modality that has no value left, whether it was absent or was blanked by the corruption, is
    left out, as the models leave it out (`fusion.inputs.observed`).

    The network is in evaluation mode meanwhile; batches lie on its device.

    Raises:
        ValueError: for a method without weights, and for batches without severities.
    """
    state = Reliance()
    with frozen(network), torch.inference_mode():
        for batch in batches:
            present = observed(batch, method.manifest).to(torch.float32)
            corrected = dataclasses.replace(batch, present=present)
            state.update(method.predict(network, batch), corrected)
    return state


def weighed_samples(
    method: Method, network: nn.Module, clean: Batch, mixed: Batch
) -> dict[str, np.ndarray]:
    """What the report shows of a few samples: who carried each prediction.

    Args:
        clean, mixed: The same n samples with their labels, as they are and corrupted modality by
            modality.

    Returns:
        The truth, sample_probability and sample_uncertainty (n,), as `Task.shown_truth` and
        `Task.shown` have them (of classes sample_label (n,) int64 and probabilities (n, K >= 2)),
        sample_present (n, M) bool and sample_weights (n, M) float32; all but the truth again with
        the suffix "_mixed"; sample_severity_mixed (n, M) float32, 0 to 5. What is present has a
        value that can be seen: what the corruption has blanked is not. Nothing for a method
        without weights.

    Raises:
        ValueError: for batches without the truth, or where severities are missing.
    """
    result: dict[str, np.ndarray] = {}
    with frozen(network), torch.inference_mode():
        for suffix, batch in (("", clean), ("_mixed", mixed)):
            prediction = method.predict(network, batch)
            if prediction.modality_weights is None:
                return {}
            doubt = uncertainty_map(prediction, None)
            truth = method.task.shown_truth(batch)
            shown = method.task.shown(prediction, batch, doubt)
            there = observed(batch, method.manifest)
            result["sample_present" + suffix] = there.cpu().numpy()
            result |= {f"sample_{name}": values for name, values in truth.items()}
            result["sample_weights" + suffix] = _numbers(prediction.modality_weights)
            result |= {f"sample_{name}{suffix}": values for name, values in shown.items()}
    if mixed.severity is None:
        raise ValueError("samples that were corrupted modality by modality say how severely")
    result["sample_severity_mixed"] = _numbers(mixed.severity)
    return result


def _numbers(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy()
