"""Published folders that `prepare` can read, one line each."""

from data_pipelines.registry import Registry

LAYOUTS = Registry(
    "layout",
    {
        "chestxray14": "data_pipelines.layouts.chestxray14:ChestXray14",
        "covid-cxr-segmentations": (
            "data_pipelines.layouts.covid_cxr_segmentations:CovidCxrSegmentations"
        ),
        "medmnist": "data_pipelines.layouts.medmnist:MedMnist",
        "phantoms": "data_pipelines.layouts.phantoms:Phantoms",
        "qata-cov19": "data_pipelines.layouts.qata_cov19:QataCov19",
        "voc": "data_pipelines.layouts.voc:Voc",
    },
)
