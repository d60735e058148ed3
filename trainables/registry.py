"""Every trainable, one line each; the space of `name` is search_spaces/spaces/<name>.yaml."""

from data_pipelines.registry import Registry

TRAINABLES = Registry(
    "trainable",
    {
        "classifier": "trainables.classifier:Classifier",
        "unet": "trainables.unet:ClassicalUNet",
        "evidential-unet": "trainables.unet:EvidentialUNet",
    },
)
