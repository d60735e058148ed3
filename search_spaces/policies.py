"""The policies of early stopping that a study may name, one line each; imported when used."""

from trustsweep.data_pipelines.registry import Registry

POLICIES = Registry(
    "stopping policy",
    {
        "forecast": "trustsweep.distributed.search.stopping.forecast:Forecast",
        "halving": "trustsweep.distributed.search.stopping.halving:Halving",
        "none": "trustsweep.distributed.search.stopping.unstopped:Unstopped",
    },
    group="trustsweep.policies",
)
