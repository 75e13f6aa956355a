"""How kubectl names and lists the resources: printer columns, plural and short names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from viper.spec.iteration import ViperIteration, ViperLoop, ViperProfile


@dataclass(frozen=True)
class Column:
    """A printer column. `wide`: shown with `-o wide` only."""

    name: str
    path: str
    type: str = "string"
    description: str = ""
    wide: bool = False

    def dump(self) -> dict[str, Any]:
        """An item of `additionalPrinterColumns`."""
        made: dict[str, Any] = {"name": self.name, "type": self.type, "jsonPath": self.path}
        if self.description:
            made["description"] = self.description
        return {**made, "priority": 1} if self.wide else made


_AGE = Column("Age", ".metadata.creationTimestamp", "date")
_SUCCEEDED = '.status.conditions[?(@.type=="Succeeded")]'

COLUMNS: dict[type, tuple[Column, ...]] = {
    ViperIteration: (
        Column("Stage", ".status.stage", description="The stage it is at."),
        Column("Progress", ".status.progress", description="How far that is."),
        Column("Generator", ".status.generator.version", "integer", "Registry version of θ0."),
        Column("Version", ".status.version", "integer", "Registry version that it made."),
        Column("Score", ".status.score", description="Held-out accuracy, and the gain over θ0."),
        Column("Succeeded", f"{_SUCCEEDED}.status", description="The summary condition."),
        _AGE,
        Column("Model", ".spec.model", description="Registered model.", wide=True),
        Column("Outcome", ".status.outcome", description="Where it stands as a whole.", wide=True),
        Column("GPU-seconds", ".status.gpuSeconds", "number", "GPU time of all its Jobs.", wide=True),
        Column("Reason", f"{_SUCCEEDED}.reason", description="Why.", wide=True),
        Column("Message", f"{_SUCCEEDED}.message", description="Why, for a person.", wide=True),
    ),
    ViperLoop: (
        Column("Iteration", ".status.iteration", "integer", "Number of the current or last iteration."),
        Column("Of", ".spec.iterations", "integer", "Number of iterations wanted."),
        Column("Current", ".status.current", description="Its ViperIteration."),
        Column("Version", ".status.version", "integer", "Registry version promoted last."),
        Column("Succeeded", f"{_SUCCEEDED}.status", description="The summary condition."),
        _AGE,
        Column("Model", ".spec.template.model", description="Registered model.", wide=True),
        Column("GPU-seconds", ".status.gpuSeconds", "number", "GPU time of all its Jobs.", wide=True),
        Column("Reason", f"{_SUCCEEDED}.reason", description="Why.", wide=True),
        Column("Message", f"{_SUCCEEDED}.message", description="Why, for a person.", wide=True),
    ),
    ViperProfile: (
        Column("Device", ".spec.device", description="torch device."),
        Column("Queue", ".spec.queueName", description="Kueue LocalQueue."),
        Column("Image", ".spec.defaults.image", description="Image of the stages, unless theirs says otherwise."),
        _AGE,
    ),
}

#: All kinds at once, as in `kubectl get vipers`. kubectl takes a category for all its kinds wherever it stands, and
#: describes one kind at a time: `kubectl describe viper NAME` needs a short name that is no category.
CATEGORY = "vipers"
#: Plural and short names by kind.
NAMES: dict[type, tuple[str, tuple[str, ...]]] = {
    ViperIteration: ("viperiterations", ("vi", "viter", "viper")),
    ViperLoop: ("viperloops", ("vl", "vloop")),
    ViperProfile: ("viperprofiles", ("vp", "vprofile")),
}
