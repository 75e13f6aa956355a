"""The stage contract: frozen input, immutable parts, the manifest last, resumable at any instruction.

Layout of an iteration in the object store, below `iterations/<name>/`:

    iteration.json                                the frozen iteration, written once
    r<n>/iteration.json, r<n>/stages/…            the same, once its spec was corrected before there was a manifest
    stages/<stage>/parts/00000-<digest>.parquet   rows of one part, accepted and rejected
    stages/<stage>/parts/00000.json               its `PartRecord`, by conditional create: the part is done
    stages/<stage>/models/<digest>/…              a trained checkpoint (training stages)
    stages/<stage>/progress/0-of-1.json           progress of a shard, overwritten while it works
    stages/<stage>/outcome.json                   what the first attempt to finish decided, until it is the manifest
    stages/<stage>/manifest.json                  the same, written when it is recorded: the stage is done

What a record or a manifest names is called by its content (older iterations: `parts/00000.parquet`, `model/…`) and
never written again, so that an attempt that comes back late can touch nothing.
"""

from viper.stage.context import StageContext, open_stage
from viper.stage.frozen import FrozenIteration, ResolvedModel, load_frozen
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
    "load_frozen",
    "load_manifest",
    "open_stage",
]
