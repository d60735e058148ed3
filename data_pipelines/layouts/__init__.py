"""Published folders that `prepare` can read, one line each."""

from data_pipelines.registry import Registry

LAYOUTS = Registry(
    "layout",
    {
        "brats": "data_pipelines.layouts.brats:Brats",
        "chestxray14": "data_pipelines.layouts.chestxray14:ChestXray14",
        "covid-cxr-segmentations": (
            "data_pipelines.layouts.covid_cxr_segmentations:CovidCxrSegmentations"
        ),
        "hannover-covid": "data_pipelines.layouts.hannover_covid:HannoverCovid",
        "lgg": "data_pipelines.layouts.lgg:Lgg",
        "medmnist": "data_pipelines.layouts.medmnist:MedMnist",
        "mimic": "data_pipelines.layouts.mimic:Mimic",
        "phantoms": "data_pipelines.layouts.phantoms:Phantoms",
        "physionet2012": "data_pipelines.layouts.physionet2012:Physionet2012",
        "qata-cov19": "data_pipelines.layouts.qata_cov19:QataCov19",
        "tcga": "data_pipelines.layouts.tcga:Tcga",
        "uci-heart": "data_pipelines.layouts.uci_heart:UciHeart",
        "voc": "data_pipelines.layouts.voc:Voc",
    },
    group="trustsweep.layouts",
)
