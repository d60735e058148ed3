"""Corruptions of images, one line each; `suite` applies them to batches."""

from data_pipelines.registry import Registry

CORRUPTIONS = Registry(
    "corruption",
    {
        "gaussian-noise": "data_pipelines.corruptions.gaussian_noise:GaussianNoise",
        "gaussian-blur": "data_pipelines.corruptions.gaussian_blur:GaussianBlur",
        "contrast": "data_pipelines.corruptions.contrast:Contrast",
    },
)
