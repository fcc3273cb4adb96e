"""What the user may set about whom the robot watches."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class FacesConfig:
    """Detector, identity and choice of the speaker; the defaults need no file."""

    detector: Literal["haar", "yunet"] = "haar"
    """haar: OpenCV's own cascade. yunet: a network, better at turned and small faces; needs `detector_model`."""
    detector_model: Path | None = None
    """YuNet as ONNX (face_detection_yunet_2023mar.onnx of OpenCV Zoo)."""
    embedding: Literal["histogram", "sface", "arcface"] = "histogram"
    """What tells persons apart. histogram: texture and colour, without weights; the others need `embedding_model`."""
    embedding_model: Path | None = None
    """SFace or ArcFace as ONNX, 112 x 112 pixels in, one vector out."""
    several: bool = True
    """Follow everybody and watch who speaks; --no-several follows one face and costs less."""
    max_people: int = 4
    """Followed at once; further faces are not looked at."""
    switch_s: float = 0.7
    """How long somebody must speak more than the watched person before the robot turns to them."""
    switch_margin: float = 0.1
    """By how much more, of a score in [0, 1]."""
    remember_s: float = 120.0
    """A person not seen for this long is forgotten, and would come back as somebody new."""
    frozen_s: float = 1.0
    """A picture repeated for this long comes from a camera that hangs; its face is let go."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        for kind, name, path in (
            (self.detector, "detector_model", self.detector_model),
            (self.embedding, "embedding_model", self.embedding_model),
        ):
            if kind not in ("haar", "histogram") and path is None:
                raise ValueError(f"{kind} needs a model file, none is given; set {name} to its ONNX file")
        if self.max_people < 1:
            raise ValueError(f"max_people must be 1 or more, got {self.max_people}")
        for name in ("switch_s", "remember_s", "frozen_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.switch_margin < 1:
            raise ValueError(f"switch_margin must be in [0, 1), got {self.switch_margin}")
