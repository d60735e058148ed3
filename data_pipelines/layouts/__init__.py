"""Published folders that `prepare` can read, one line each."""

from data_pipelines.registry import Registry

LAYOUTS = Registry(
    "layout",
    {
        "phantoms": "data_pipelines.layouts.phantoms:Phantoms",
        "qata-cov19": "data_pipelines.layouts.qata_cov19:QataCov19",
    },
)
