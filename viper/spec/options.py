"""Options of the recipe besides the paper's own run: supplied samples, and looking into the checkpoints."""

from __future__ import annotations

from typing import Literal

from viper.spec.base import OURS, PAPER, SpecModel, setting
from viper.spec.forms import LINE, ROWS


class ExternalColumns(SpecModel):
    """What the columns of a foreign file are called."""

    prompt: str = setting(
        "prompt", source=OURS, min_length=1, max_length=250, forms=(LINE,), description="What is asked: a text."
    )
    images: str = setting(
        "images",
        source=OURS,
        min_length=1,
        max_length=250,
        forms=(LINE,),
        description="One image or a list of them: paths beside the file, or (Parquet) encoded images.",
    )
    ground_truth: str = setting(
        "ground_truth",
        source=OURS,
        min_length=1,
        max_length=250,
        forms=(LINE,),
        description="The answer, a text that is split into sentences, or a list of sentences.",
    )


class ExternalData(SpecModel):
    """Reinforcement learning on supplied samples (an ablation of the paper: ViRL39K)."""

    uri: str = setting(
        min_length=1,
        max_length=1024,
        forms=ROWS,
        description="JSONL or Parquet (by its ending) of rows {prompt, images, ground_truth}: a path, file:// or s3://.",
    )
    use: Literal["replace", "add"] = setting(
        "replace",
        source=PAPER,
        description="`replace`: every RL stage learns from these alone, and nothing is synthesised. `add`: they join "
        "the data of every RL stage.",
    )
    samples: int | None = setting(
        None,
        unit="samples",
        source=OURS,
        ge=1,
        le=10**9,
        description="Use this many rows of the file, drawn by seed, in their order; null: all.",
    )
    columns: ExternalColumns = setting(ExternalColumns, source=OURS, description="Names of the columns.")


class Analysis(SpecModel):
    """Looking into the checkpoints: attention heat maps of the same images before and after training."""

    attention_images: int = setting(
        0,
        unit="images",
        source=OURS,
        ge=0,
        le=64,
        description="Images on which θ0 and every trained checkpoint are watched (stage map-attention), held-out ones "
        "first; 0: the stage is left out.",
    )
    attention_tokens: int = setting(
        64, unit="tokens", source=OURS, ge=1, le=1024, description="Longest answer during which they are watched."
    )
    attention_pixels: int = setting(
        401_408,
        unit="px",
        source=OURS,
        ge=784,
        le=2**31 - 1,
        description="Larger images are reduced to this area: memory grows with its square.",
    )
