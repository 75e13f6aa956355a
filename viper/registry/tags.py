"""Tags of model versions that tell where they come from."""

from __future__ import annotations

#: Version of the same registered model whose data and weights a version was made from (θ0 of its iteration).
PARENT_VERSION = "viper.parent_version"
#: First version of the lineage.
BASE_VERSION = "viper.base_version"
#: The iteration that made a version: `<store URI>/iterations/<name>`.
ITERATION_URI = "viper.store"
#: Before the name of a stage: content digest of its manifest.
MANIFEST = "viper.manifest."
