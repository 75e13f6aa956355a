"""The stage contract: frozen input, immutable parts, the manifest last, resumable at any instruction.

Layout of an iteration in the object store, below `iterations/<name>/`:

    iteration.json                          the frozen iteration, written once
    stages/<stage>/parts/00000.parquet      rows of one part, accepted and rejected
    stages/<stage>/parts/00000.json         its `PartRecord`, written after the rows: the part is done
    stages/<stage>/model/…                  a trained checkpoint (training stages)
    stages/<stage>/progress/0-of-1.json     progress of a shard, overwritten while it works
    stages/<stage>/manifest.json            the `Manifest`, by conditional create: the stage is done
"""

from viper.stage.context import StageContext, open_stage
from viper.stage.frozen import FrozenIteration, ResolvedModel
from viper.stage.manifest import Manifest, PartRecord, load_manifest
from viper.stage.progress import Progress, ProgressRecord

__all__ = [
    "FrozenIteration",
    "Manifest",
    "PartRecord",
    "Progress",
    "ProgressRecord",
    "ResolvedModel",
    "StageContext",
    "load_manifest",
    "open_stage",
]
