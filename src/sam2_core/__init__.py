"""SAM 2.1 for scientific images: model, predictors, volumes and the command line.

The names below are imported when first used, so that `import sam2_core` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sam2_core.build import (
        build_sam2,
        build_sam2_hf,
        build_sam2_video_predictor,
        build_sam2_video_predictor_hf,
        load_model,
    )
    from sam2_core.predict.automatic import SAM2AutomaticMaskGenerator
    from sam2_core.predict.image_predictor import SAM2ImagePredictor
    from sam2_core.predict.video_predictor import SAM2VideoPredictor
    from sam2_core.volume.open import open_volume
    from sam2_core.volume.session import Session

    __version__: str

__all__ = [
    "SAM2AutomaticMaskGenerator",
    "SAM2ImagePredictor",
    "SAM2VideoPredictor",
    "Session",
    "__version__",
    "build_sam2",
    "build_sam2_hf",
    "build_sam2_video_predictor",
    "build_sam2_video_predictor_hf",
    "load_model",
    "open_volume",
]

_HOMES = {
    "load_model": "sam2_core.build",
    "build_sam2": "sam2_core.build",
    "build_sam2_video_predictor": "sam2_core.build",
    "build_sam2_hf": "sam2_core.build",
    "build_sam2_video_predictor_hf": "sam2_core.build",
    "SAM2ImagePredictor": "sam2_core.predict.image_predictor",
    "SAM2VideoPredictor": "sam2_core.predict.video_predictor",
    "SAM2AutomaticMaskGenerator": "sam2_core.predict.automatic",
    "open_volume": "sam2_core.volume.open",
    "Session": "sam2_core.volume.session",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("napari-sam2")
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
