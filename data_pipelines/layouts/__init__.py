"""Published folders that `prepare` can read, one line each."""

from trustsweep.data_pipelines.registry import Registry

LAYOUTS = Registry(
    "layout",
    {
        "brats": "trustsweep.data_pipelines.layouts.brats:Brats",
        "chestxray14": "trustsweep.data_pipelines.layouts.chestxray14:ChestXray14",
        "covid-cxr-segmentations": (
            "trustsweep.data_pipelines.layouts.covid_cxr_segmentations:CovidCxrSegmentations"
        ),
        "ham10000": "trustsweep.data_pipelines.layouts.ham10000:Ham10000",
        "hannover-covid": "trustsweep.data_pipelines.layouts.hannover_covid:HannoverCovid",
        "lgg": "trustsweep.data_pipelines.layouts.lgg:Lgg",
        "medmnist": "trustsweep.data_pipelines.layouts.medmnist:MedMnist",
        "mimic": "trustsweep.data_pipelines.layouts.mimic:Mimic",
        "nnunet": "trustsweep.data_pipelines.layouts.nnunet:Nnunet",
        "phantoms": "trustsweep.data_pipelines.layouts.phantoms:Phantoms",
        "physionet2012": "trustsweep.data_pipelines.layouts.physionet2012:Physionet2012",
        "qata-cov19": "trustsweep.data_pipelines.layouts.qata_cov19:QataCov19",
        "tcga": "trustsweep.data_pipelines.layouts.tcga:Tcga",
        "uci-heart": "trustsweep.data_pipelines.layouts.uci_heart:UciHeart",
        "voc": "trustsweep.data_pipelines.layouts.voc:Voc",
    },
    group="trustsweep.layouts",
)
