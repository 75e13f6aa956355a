"""Where lmms-eval is not installed, benchmarks say so before anything is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluation_fakes import Opener

from viper.engines.base import VisionLanguageModel
from viper.errors import InputError
from viper.evaluation.stage import Checkpoint, evaluate
from viper.methods.stages import EVALUATE


def test_the_stage_names_the_image_that_has_it(tmp_path: Path, open_context: Opener) -> None:
    place = tmp_path / "TIGER-Lab" / "Mantis-Eval"
    place.mkdir(parents=True)
    (place / "test.parquet").write_bytes(b"PAR1")
    benchmarks = {"tasks": {"mantis": {}}, "datasets": str(tmp_path)}

    def load(_: Checkpoint) -> VisionLanguageModel:
        raise AssertionError("no model is needed to say so")

    with pytest.raises(InputError, match=r"benchmarks need lmms-eval(?s:.)*image `evaluation`"):
        evaluate(open_context(EVALUATE, evaluation={"benchmarks": benchmarks}), load)
