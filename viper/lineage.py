"""Tags of model versions that tell where they come from."""

from __future__ import annotations

#: Version of the same registered model whose data and weights a version was made from (θ0 of its iteration).
PARENT_VERSION = "viper.parent_version"
#: First version of the lineage.
BASE_VERSION = "viper.base_version"
