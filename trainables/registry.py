"""Every trainable, one line each; the space of `name` is search_spaces/spaces/<name>.yaml."""

from data_pipelines.registry import Registry

TRAINABLES = Registry(
    "trainable",
    {
        "classifier": "trainables.classifier:Classifier",
        "draf": "trainables.fusion.draf:Draf",
        "drfuse": "trainables.fusion.drfuse:DrFuse",
        "drifa-net": "trainables.fusion.drifa:DrifaNet",
        "early-fusion": "trainables.fusion.early:EarlyFusion",
        "healnet": "trainables.fusion.healnet:HealNet",
        "late-fusion": "trainables.fusion.late:LateFusion",
        "mda": "trainables.fusion.mda:MdaStyle",
        "unet": "trainables.unet:ClassicalUNet",
        "evidential-unet": "trainables.unet:EvidentialUNet",
    },
)
