"""The hand-over from building to running: an engine folder and its contract.

    student.onnx    one step of the student, explicit state (or the same step in another format)
    student.plan    beside it, where TensorRT-RTX built ahead of time for a GPU that is elsewhere
    manifest.json   spec, tensors, precision, parity, hashes, run card

The loop needs nothing else: no checkpoint, no torch.
"""

import dataclasses
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any

from dyad.provenance import read_json, sha256_file, write_json
from student.spec import StudentSpec

FILE = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What an engine folder promises."""

    runtime: str
    """File in deploy/engines that runs it."""
    model: str
    """File name of the graph or program."""
    model_sha256: str
    precision: str
    """int8 or float32."""
    flavour: str
    """canonical (signed INT8: TensorRT, OpenVINO), cpu (unsigned INT8: ONNX Runtime), simulated (INT8 values in float
    arithmetic: torch's formats) or unquantised (float function of weights that were trained for INT8).
    """
    spec: StudentSpec
    states: dict[str, tuple[int, ...]]
    """State tensors by name, without the batch axis; each comes back as `<name>_next`."""
    stays_float: tuple[str, ...]
    """Parts that do not run in INT8, each with the reason."""
    parity: dict[str, float]
    """Largest and mean difference of probabilities against torch, over `steps` recorded steps."""
    device: dict[str, str]
    """What a plan is bound to: machine, or library version and compute capabilities; empty for what runs anywhere."""
    run: dict[str, Any]
    parity_on: str = "this engine"
    """What was compared with torch: the engine itself or, where it cannot run, what stood in for it."""
    parity_float: dict[str, float] = field(default_factory=dict)
    """As `parity`, against the float model, where a float checkpoint was quantised after training; else empty."""

    def write(self, folder: Path) -> None:
        """Write beside the model."""
        content = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        write_json(folder / FILE, content | {"spec": self.spec.to_dict()})

    @classmethod
    def read(cls, folder: Path | str) -> "Manifest":
        """Read and check an engine folder; raises ValueError that names the file and the remedy."""
        folder = Path(folder)
        if not (folder / FILE).is_file():
            raise ValueError(
                f"{folder}: no engine there ({FILE} is missing); make one with python -m deploy.build_engine"
            )
        content = read_json(folder / FILE)
        fields = dataclasses.fields(cls)
        needed = {f.name for f in fields if f.default is MISSING and f.default_factory is MISSING}
        if odd := sorted((needed - set(content)) | (set(content) - {f.name for f in fields})):
            raise ValueError(
                f"{folder / FILE}: written by another version (differing: {', '.join(odd)}); build it again"
            )
        content["spec"] = StudentSpec.from_dict(content["spec"], where=str(folder / FILE))
        content["states"] = {name: tuple(shape) for name, shape in content["states"].items()}
        content["stays_float"] = tuple(content["stays_float"])
        manifest = cls(**content)
        model = folder / manifest.model
        if not model.is_file():
            raise ValueError(f"{model}: missing; build the engine again with python -m deploy.build_engine")
        if sha256_file(model) != manifest.model_sha256:
            raise ValueError(f"{model}: damaged, its hash is not the manifest's; copy or build the engine again")
        return manifest
