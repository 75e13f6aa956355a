"""The CLIP-score filter of the small world: a tiny open_clip model behind the generic engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from viper.engines.open_clip_filter import OpenClipFilter

ASSETS: Final = Path(__file__).parent / "assets" / "clip"
CALIBRATION: Final = "calibration.json"


class SmallWorldClip(OpenClipFilter):
    """The `ImageSimilarityModel` of the small world, on the packaged assets unless told otherwise."""

    def __init__(self, assets: Path | None = None) -> None:
        super().__init__(ASSETS if assets is None else Path(assets))

    @staticmethod
    def memory_needed(*_: object) -> int:
        """Next to nothing, and on the CPU: there is nothing to plan."""
        return 0

    @staticmethod
    def weights_needed(*_: object) -> int:
        """As `memory_needed`."""
        return 0


def recommended_min_score(assets: Path = ASSETS) -> float:
    """The CLIP score that 95 of 100 honest edits of the small world reach, as measured with the packaged weights."""
    measured = json.loads((assets / CALIBRATION).read_text("utf-8"))
    return float(measured["edit_quantile_0.05"])
