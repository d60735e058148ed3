"""Every task, method, network, attack, condition, regime and risk, with what a study is checked
against.

Free of torch. The space of the method `name` is search_spaces/spaces/<name>.yaml, that of a network
search_spaces/spaces/networks/<name>.yaml.
"""

from typing import Literal, TypeAlias, get_args

from trustsweep.data_pipelines import needs
from trustsweep.data_pipelines.registry import Registry, Table, registered
from trustsweep.data_pipelines.schema import TaskName

#: What a model can predict; `skill` is the metric whose skill a study may optimise, `classed`
#: whether each image has one class, by which it can be weighed.
TASKS = Registry(
    "task",
    {
        TaskName.SEGMENTATION: registered(
            "trustsweep.trainables.tasks.segmentation:Segmentation",
            skill="dice_lesion",
            classed=False,
        ),
        TaskName.MULTICLASS_SEGMENTATION: registered(
            "trustsweep.trainables.tasks.segmentation:MulticlassSegmentation",
            skill="dice_lesion",
            classed=False,
        ),
        TaskName.REGION_SEGMENTATION: registered(
            "trustsweep.trainables.tasks.segmentation:RegionSegmentation",
            skill="dice_lesion",
            classed=False,
        ),
        TaskName.CLASSIFICATION: registered(
            "trustsweep.trainables.tasks.classification:Classification",
            skill="balanced_accuracy",
            classed=True,
        ),
        TaskName.MULTILABEL: registered(
            "trustsweep.trainables.tasks.multilabel:Multilabel", skill="auroc", classed=False
        ),
        TaskName.SURVIVAL: registered(
            "trustsweep.trainables.tasks.survival:Survival", skill="c_index", classed=False
        ),
    },
)

#: What can be asked of each pixel.
_PIXELS = (
    TaskName.SEGMENTATION,
    TaskName.MULTICLASS_SEGMENTATION,
    TaskName.REGION_SEGMENTATION,
)

#: Uncertainty maps of classifiers that predict in several passes.
_OF_PASSES = ("entropy", "expected-entropy", "mutual-information", "least-confidence")

METHODS = Registry(
    "method",
    {
        "classifier": registered(
            "trustsweep.trainables.classifier:Classifier",
            tasks=(TaskName.CLASSIFICATION, TaskName.MULTILABEL, TaskName.SURVIVAL),
            needs=needs.IMAGES,
            weighs_classes=True,
        ),
        "draf": registered("trustsweep.trainables.fusion.draf:Draf", uncertainties=_OF_PASSES),
        "drfuse": "trustsweep.trainables.fusion.drfuse:DrFuse",
        "drifa-net": registered(
            "trustsweep.trainables.fusion.drifa:DrifaNet", uncertainties=_OF_PASSES
        ),
        "early-fusion": "trustsweep.trainables.fusion.early:EarlyFusion",
        "healnet": "trustsweep.trainables.fusion.healnet:HealNet",
        "late-fusion": "trustsweep.trainables.fusion.late:LateFusion",
        "mda": "trustsweep.trainables.fusion.mda:MdaStyle",
        "unet": registered(
            "trustsweep.trainables.unet:ClassicalUNet",
            tasks=_PIXELS,
            weighs_classes=True,
            needs=needs.IMAGES,
            uncertainties=("bernoulli-variance", "entropy"),
        ),
        "evidential-unet": registered(
            "trustsweep.trainables.unet:EvidentialUNet",
            tasks=_PIXELS,
            weighs_classes=True,
            needs=needs.IMAGES,
            uncertainties=(
                "vacuity",
                "beta-variance",
                "entropy",
                "expected-entropy",
                "mutual-information",
            ),
        ),
    },
    group="trustsweep.methods",
    tasks=(TaskName.CLASSIFICATION, TaskName.SURVIVAL),
    needs=needs.MODALITIES,
    uncertainties=("entropy", "least-confidence"),
    weighs_classes=False,
)

#: Whether a network gives outputs for each pixel or for each image.
NetworkKind: TypeAlias = Literal["pixels", "images"]

#: Families of networks, among which the parameter `network` of a method chooses; see
#: `trustsweep.trainables.networks.base.NetworkFamily`.
NETWORKS = Registry(
    "network",
    {
        "unet": registered("trustsweep.trainables.networks.unet:UNetFamily", kind="pixels"),
        "dynunet": registered(
            "trustsweep.trainables.networks.dynunet:DynUNetFamily", kind="pixels"
        ),
        "segresnet": registered(
            "trustsweep.trainables.networks.segresnet:SegResNetFamily", kind="pixels"
        ),
        "fcn": registered("trustsweep.trainables.networks.fcn:FcnFamily", kind="pixels"),
        "deeplabv3": registered(
            "trustsweep.trainables.networks.deeplabv3:DeepLabV3Family", kind="pixels"
        ),
        "resnet": registered("trustsweep.trainables.networks.resnet:ResNetFamily", kind="images"),
        "densenet": registered(
            "trustsweep.trainables.networks.densenet:DenseNetFamily", kind="images"
        ),
        "vit": registered("trustsweep.trainables.networks.vit:ViTFamily", kind="images"),
    },
    group="trustsweep.networks",
)

#: How an attack's ε is measured: the most that a pixel changes, or the length of the change.
Norm: TypeAlias = Literal["linf", "l2"]

ATTACKS = Registry(
    "attack",
    {
        "fgsm": registered(
            "trustsweep.trainables.attacks.single_step:FGSM", iterative=False, norms=("linf",)
        ),
        "r-fgsm": registered(
            "trustsweep.trainables.attacks.single_step:RFGSM", iterative=False, norms=("linf",)
        ),
        "pgd": "trustsweep.trainables.attacks.pgd:PGD",
        "segpgd": "trustsweep.trainables.attacks.pgd:SegPGD",
        "apgd": "trustsweep.trainables.attacks.apgd:APGD",
        "square": registered(
            "trustsweep.trainables.attacks.square:Square",
            follows_gradients=False,
            norms=("linf",),
        ),
    },
    group="trustsweep.attacks",
    iterative=True,
    follows_gradients=True,
    norms=get_args(Norm),
)

#: Conditions of an evaluation, in the order in which names list them; `trainables.conditions`.
CONDITIONS = Registry(
    "condition",
    {
        "clean": "trustsweep.trainables.conditions:Clean",
        "corrupted": "trustsweep.trainables.conditions:Corrupted",
        "attacked": "trustsweep.trainables.conditions:Attacked",
        "ood": "trustsweep.trainables.conditions:Sites",
    },
    group="trustsweep.conditions",
)

#: Ensembles of attacks, named where a single attack may be: the one of a search,
#: and the one of a front.
FAST, FULL = "fast", "full"
ENSEMBLES = (FAST, FULL)

REGIMES = Registry(
    "regime",
    {
        "none": registered("trustsweep.trainables.regimes:NoAttack", attacks=False),
        "random": registered("trustsweep.trainables.regimes:RandomFraction", selects=True),
        "uncertain": registered(
            "trustsweep.trainables.regimes:MostUncertain", selects=True, ranks=True
        ),
        "certain": registered(
            "trustsweep.trainables.regimes:LeastUncertain", selects=True, ranks=True
        ),
        "all": "trustsweep.trainables.regimes:WholeBatch",
        "alternating": "trustsweep.trainables.regimes:Alternating",
    },
    group="trustsweep.regimes",
    attacks=True,
    selects=False,
    ranks=False,
)

#: Per-pixel risks of a Dirichlet prediction, (true, others) -> risk >= 0 in nats (squared error: 0
#: to 2); see `trustsweep.trainables.losses`.
RISKS = Registry(
    "risk",
    {
        "type-2": "trustsweep.trainables.losses:type_2_risk",
        "cross-entropy": "trustsweep.trainables.losses:cross_entropy_risk",
        "squared-error": "trustsweep.trainables.losses:squared_error_risk",
    },
    group="trustsweep.risks",
)

#: Uncertainty maps that a method may offer; see `trustsweep.trainables.uncertainty`.
MAPS: Table[str] = Table(
    "uncertainty map",
    {
        "vacuity": "lack of evidence, K / S of K classes (2 / S of a Beta)",
        "beta-variance": "variance of the probabilities under the Beta, p̂(1 − p̂) / (S + 1), or the "
        "Dirichlet, ½ Σ p̂(1 − p̂) / (S + 1)",
        "entropy": "entropy of the mean prediction, H(p̂): total uncertainty",
        "expected-entropy": "mean entropy under the Beta or Dirichlet, or of the passes, E[H(p)]: "
        "caused by the data",
        "mutual-information": "H(p̂) − E[H(p)]: the part that more evidence would remove",
        "bernoulli-variance": "variance of the predicted label, p(1 − p); of classes ½ Σ p(1 − p)",
        "least-confidence": "probability that the predicted label is wrong, 1 − max p",
    },
    group="trustsweep.maps",
)


def training_attacks() -> list[str]:
    """Names of those that follow a gradient: without one, a batch takes thousands of queries."""
    return ATTACKS.having(follows_gradients=True)
