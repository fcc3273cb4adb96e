"""Detectors by name."""

from pathlib import Path

from student.detect import Detector, HaarDetector


def load(name: str, model: Path | None) -> Detector:
    """The detector named; raises ValueError when its file is missing."""
    if name == "haar":
        return HaarDetector()
    if name != "yunet":
        raise ValueError(f"unknown detector {name!r}; known: haar, yunet")
    if model is None:
        raise ValueError("yunet needs a model file, none is given; set detector_model to its ONNX file")
    from deploy.faces.yunet import YuNetDetector

    return YuNetDetector(model)
