"""Corruptions of images and clinical data, one line each; `suite` applies them to batches.

Of MedMNIST-C, black-corner, characters, saturate, stain deposit and bubble are left out: `suites`
says why.
"""

from trustsweep.data_pipelines import needs
from trustsweep.data_pipelines.registry import Registry, registered

CORRUPTIONS = Registry(
    "corruption",
    {
        "gaussian-noise": registered(
            "trustsweep.data_pipelines.corruptions.gaussian_noise:GaussianNoise", symbol="σ"
        ),
        "speckle-noise": "trustsweep.data_pipelines.corruptions.speckle_noise:SpeckleNoise",
        "impulse-noise": "trustsweep.data_pipelines.corruptions.impulse_noise:ImpulseNoise",
        "shot-noise": "trustsweep.data_pipelines.corruptions.shot_noise:ShotNoise",
        "gaussian-blur": "trustsweep.data_pipelines.corruptions.gaussian_blur:GaussianBlur",
        "defocus-blur": "trustsweep.data_pipelines.corruptions.defocus_blur:DefocusBlur",
        "motion-blur": "trustsweep.data_pipelines.corruptions.motion_blur:MotionBlur",
        "zoom-blur": "trustsweep.data_pipelines.corruptions.zoom_blur:ZoomBlur",
        "pixelate": "trustsweep.data_pipelines.corruptions.pixelate:Pixelate",
        "jpeg": registered("trustsweep.data_pipelines.corruptions.jpeg:Jpeg", symbol="quality"),
        "brightness-up": "trustsweep.data_pipelines.corruptions.brightness:BrightnessUp",
        "brightness-down": "trustsweep.data_pipelines.corruptions.brightness:BrightnessDown",
        "contrast-up": "trustsweep.data_pipelines.corruptions.contrast:ContrastUp",
        "contrast-down": "trustsweep.data_pipelines.corruptions.contrast:ContrastDown",
        "gamma-up": "trustsweep.data_pipelines.corruptions.gamma:GammaUp",
        "gamma-down": "trustsweep.data_pipelines.corruptions.gamma:GammaDown",
        "bias-field": "trustsweep.data_pipelines.corruptions.bias_field:BiasField",
        "ghosting": "trustsweep.data_pipelines.corruptions.ghosting:Ghosting",
        "spike": "trustsweep.data_pipelines.corruptions.spike:Spike",
        "mri-motion": "trustsweep.data_pipelines.corruptions.mri_motion:MriMotion",
        "modality-drop": registered(
            "trustsweep.data_pipelines.corruptions.modality_drop:ModalityDrop",
            needs=needs.MODALITIES,
            symbol="p_miss",
        ),
        "feature-mask": registered(
            "trustsweep.data_pipelines.corruptions.feature_mask:FeatureMask",
            needs=needs.RECORDS,
            symbol="share masked",
        ),
        "value-noise": registered(
            "trustsweep.data_pipelines.corruptions.value_noise:ValueNoise",
            needs=needs.NUMBERS,
            symbol="σ",
        ),
        "mixed-quality": registered(
            "trustsweep.data_pipelines.corruptions.mixed_quality:MixedQuality",
            needs=needs.ANYTHING,
            symbol="share of modalities",
        ),
    },
    group="trustsweep.corruptions",
    needs=needs.IMAGES,
    symbol="parameter",
)
