"""Corruptions of images and clinical data, one line each; `suite` applies them to batches.

Of MedMNIST-C, black-corner, characters, saturate, stain deposit and bubble are left out: `suites`
says why.
"""

from data_pipelines.corruptions import needs
from data_pipelines.registry import Registry, registered

CORRUPTIONS = Registry(
    "corruption",
    {
        "gaussian-noise": "data_pipelines.corruptions.gaussian_noise:GaussianNoise",
        "speckle-noise": "data_pipelines.corruptions.speckle_noise:SpeckleNoise",
        "impulse-noise": "data_pipelines.corruptions.impulse_noise:ImpulseNoise",
        "shot-noise": "data_pipelines.corruptions.shot_noise:ShotNoise",
        "gaussian-blur": "data_pipelines.corruptions.gaussian_blur:GaussianBlur",
        "defocus-blur": "data_pipelines.corruptions.defocus_blur:DefocusBlur",
        "motion-blur": "data_pipelines.corruptions.motion_blur:MotionBlur",
        "zoom-blur": "data_pipelines.corruptions.zoom_blur:ZoomBlur",
        "pixelate": "data_pipelines.corruptions.pixelate:Pixelate",
        "jpeg": "data_pipelines.corruptions.jpeg:Jpeg",
        "brightness-up": "data_pipelines.corruptions.brightness:BrightnessUp",
        "brightness-down": "data_pipelines.corruptions.brightness:BrightnessDown",
        "contrast-up": "data_pipelines.corruptions.contrast:ContrastUp",
        "contrast-down": "data_pipelines.corruptions.contrast:ContrastDown",
        "gamma-up": "data_pipelines.corruptions.gamma:GammaUp",
        "gamma-down": "data_pipelines.corruptions.gamma:GammaDown",
        "bias-field": "data_pipelines.corruptions.bias_field:BiasField",
        "ghosting": "data_pipelines.corruptions.ghosting:Ghosting",
        "spike": "data_pipelines.corruptions.spike:Spike",
        "mri-motion": "data_pipelines.corruptions.mri_motion:MriMotion",
        "modality-drop": registered(
            "data_pipelines.corruptions.modality_drop:ModalityDrop", needs=needs.MODALITIES
        ),
        "feature-mask": registered(
            "data_pipelines.corruptions.feature_mask:FeatureMask", needs=needs.RECORDS
        ),
        "value-noise": registered(
            "data_pipelines.corruptions.value_noise:ValueNoise", needs=needs.NUMBERS
        ),
        "mixed-quality": registered(
            "data_pipelines.corruptions.mixed_quality:MixedQuality", needs=needs.ANYTHING
        ),
    },
    group="trustsweep.corruptions",
    needs=needs.IMAGES,
)
