"""The recipe: what the paper is about. The same on a laptop and on 8×A100; the defaults are the paper's values."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from viper.spec import base
from viper.spec.base import SpecModel, setting
from viper.spec.forms import ROLE, ROWS, WORD
from viper.spec.options import Analysis, ExternalData

PAPER, OURS = base.PAPER, base.OURS
CATEGORIES = (
    "Removing/Adding Details",
    "Changing Spatial Relationships",
    "Editing Background",
    "Attribute Tuning",
)


class SamplingSettings(SpecModel):
    """How outputs are sampled during synthesis."""

    temperature: float = setting(1.0, source=OURS, ge=0, le=2, description="Softmax temperature; 0 is greedy.")
    top_p: float = setting(1.0, source=OURS, gt=0, le=1, description="Nucleus mass.")
    max_tokens: int = setting(1024, unit="tokens", source=OURS, ge=1, le=32768, description="Longest output.")
    attempts: int = setting(
        3,
        source=OURS,
        ge=1,
        le=10,
        description="Tries, each with a new seed, before an unreadable output (invalid JSON, no end) is rejected. "
        "Further tries of greedy sampling use temperature 0.7.",
    )


class GreedySettings(SamplingSettings):
    """Sampling that is greedy unless a temperature is given."""

    temperature: float = setting(0.0, source=OURS, ge=0, le=2, description="Softmax temperature; 0 is greedy.")


class TrainingSettings(SpecModel):
    """GRPO with decoupled clip and no KL (paper, section on policy optimisation and its training table)."""

    steps: int | None = setting(
        None, source=OURS, ge=1, le=10**7, description="Optimiser batches to take; null: `epochs` decides."
    )
    epochs: float = setting(1.0, source=OURS, gt=0, le=100, description="Passes over the data when `steps` is null.")
    batch_prompts: int = setting(
        128, unit="prompts", source=PAPER, ge=1, le=10**6, description="Prompts per rollout batch."
    )
    mini_batch_prompts: int = setting(
        64, unit="prompts", source=PAPER, ge=1, le=10**6, description="Prompts per optimiser step."
    )
    micro_batch: int = setting(
        4, unit="outputs per device", source=PAPER, ge=1, le=10**6, description="Outputs per forward/backward pass."
    )
    group_size: int = setting(5, unit="outputs", source=PAPER, ge=2, le=64, description="Outputs G sampled per prompt.")
    temperature: float = setting(1.0, source=PAPER, gt=0, le=2, description="Rollout temperature.")
    max_prompt_tokens: int = setting(10240, unit="tokens", source=PAPER, ge=16, le=2**24, description="Longest prompt.")
    max_response_tokens: int = setting(4096, unit="tokens", source=PAPER, ge=4, le=2**24, description="Longest output.")
    learning_rate: float = setting(1e-6, source=PAPER, gt=0, le=1, description="AdamW learning rate.")
    warmup_steps: int = setting(
        0, unit="steps", source=OURS, ge=0, le=10**7, description="Linear warm-up of the learning rate."
    )
    weight_decay: float = setting(0.0, source=OURS, ge=0, le=1, description="AdamW weight decay.")
    max_grad_norm: float = setting(1.0, source=OURS, gt=0, le=1e9, description="Gradient clipping (norm).")
    clip_low: float = setting(
        0.2, source="DAPO; not printed in the paper", gt=0, lt=1, description="ε_low of equation 8."
    )
    clip_high: float = setting(
        0.28, source="DAPO; not printed in the paper", gt=0, le=1e9, description="ε_high of equation 8."
    )
    save_every: int = setting(20, unit="steps", source=OURS, ge=1, le=10**7, description="Steps between checkpoints.")
    select: Literal["last", "heldOutReward", "heldOutPerception"] = setting(
        "last",
        source=OURS,
        description="Which checkpoint becomes the stage's model: the last one, or the best by held-out reward or by "
        "the evaluation's `selection` questions (never its test questions).",
    )

    @model_validator(mode="after")
    def _batches_divide(self) -> Self:
        if self.batch_prompts % self.mini_batch_prompts:
            raise ValueError(
                f"batchPrompts ({self.batch_prompts}) must be a multiple of "
                f"miniBatchPrompts ({self.mini_batch_prompts})"
            )
        return self


class CaptionRecipe(SpecModel):
    """Task 1, caption self-refining: samples (I, C_g, R)."""

    samples: int = setting(7000, unit="samples", source=PAPER, ge=1, le=10**9, description="Quota of accepted samples.")
    expected_acceptance: float = setting(
        0.9,
        source=OURS,
        gt=0,
        le=1,
        description="Share of captions with flaws that validation should accept; synthesis stops once it has "
        "`samples` divided by this.",
    )
    captioning: SamplingSettings = setting(SamplingSettings, source=OURS, description="Sampling of captions C_g.")
    critique: GreedySettings = setting(GreedySettings, source=OURS, description="Sampling of critiques R.")
    reconstruction_size: int = setting(
        1024, unit="px", source=OURS, ge=32, le=4096, description="Longer side of the reconstructed image."
    )
    training: TrainingSettings = setting(TrainingSettings, source=PAPER, description="GRPO stage 1.")


class CategoryBalance(SpecModel):
    """How edit categories are distributed."""

    mode: Literal["model", "targets"] = setting(
        "model",
        source=PAPER,
        description="`model`: the model's own choice stands. `targets`: a choice beyond its share of `targets` is "
        "replaced by the category furthest below its share (recorded on the sample), and the quota of samples is "
        "divided by these shares.",
    )
    targets: dict[str, Annotated[float, Field(le=1e9)]] = setting(
        lambda: dict.fromkeys(CATEGORIES, 0.25),
        source=OURS,
        max_length=len(CATEGORIES),
        description="Share of each category; must sum to 1.",
    )

    @model_validator(mode="after")
    def _valid_targets(self) -> Self:
        if unknown := sorted(set(self.targets) - set(CATEGORIES)):
            raise ValueError(f"targets names unknown categories {unknown}; the four are {list(CATEGORIES)}")
        if any(v < 0 for v in self.targets.values()) or abs(sum(self.targets.values()) - 1) > 1e-6:
            raise ValueError("targets: shares must be ≥ 0 and sum to 1")
        return self


class OperationRecipe(SpecModel):
    """Task 2, visual-operation predicting: samples (I_orig, I_recon, Ops)."""

    samples: int = setting(3000, unit="samples", source=PAPER, ge=1, le=10**9, description="Quota of accepted samples.")
    expected_acceptance: float = setting(
        0.5,
        source=OURS,
        gt=0,
        le=1,
        description="Share of edits that validation should accept; synthesis stops once it has `samples` divided by "
        "this.",
    )
    edits_per_image: int = setting(1, source=OURS, ge=1, le=64, description="Operations proposed per image.")
    proposing: SamplingSettings = setting(
        SamplingSettings, source=OURS, description="Sampling of category choices and instructions."
    )
    category_balance: CategoryBalance = setting(
        CategoryBalance, source=OURS, description="Balance of the four categories."
    )
    training: TrainingSettings = setting(TrainingSettings, source=PAPER, description="GRPO stage 2.")


class ChangeFilter(SpecModel):
    """What is seen without a model: how much of the picture an edit changed."""

    min_share: float = setting(
        0.0005, source=OURS, ge=0, le=1, description="Edits that changed less of the picture did nothing."
    )
    max_share: float = setting(
        0.95, source=OURS, ge=0, le=1, description="Edits that changed more drew another picture."
    )

    @model_validator(mode="after")
    def _something_passes(self) -> Self:
        if self.min_share > self.max_share:
            raise ValueError("minShare is more than maxShare, so that nothing would pass; lower one or raise the other")
        return self


class ClipFilter(SpecModel):
    """The first filter on edits: cosine of CLIP image embeddings, original against edited."""

    min_score: float = setting(
        0.75,
        source=OURS,
        ge=-1,
        le=1,
        description="Edits less similar to the original than this drifted too far.",
    )
    min_quantile: float | None = setting(
        None,
        source=OURS,
        ge=0,
        lt=1,
        description="Instead of minScore: the threshold is this quantile of the scores of the first 256 edits.",
    )
    max_score: float = setting(
        1.0,
        source=OURS,
        ge=-1,
        le=1,
        description="Edits more similar than this changed nothing visible; 1 disables.",
    )

    @model_validator(mode="after")
    def _something_passes(self) -> Self:
        if self.min_score > self.max_score:
            raise ValueError("minScore is more than maxScore, so that nothing would pass; lower one or raise the other")
        return self


class JudgeSettings(SpecModel):
    """The second filter on edits: a VLM judges original, edited image and instruction."""

    sampling: GreedySettings = setting(GreedySettings, source=OURS, description="Sampling of verdicts.")
    votes: int = setting(
        1, source=OURS, ge=1, le=15, description="Verdicts per edit; a majority accepts (odd numbers)."
    )
    controls: float = setting(
        0.05,
        source=OURS,
        ge=0,
        le=1,
        description="Share of edits that the judge is also shown with an instruction that is not theirs, or unedited. "
        "What it accepts of these is its false-accept rate, on the data card.",
    )

    @model_validator(mode="after")
    def _odd(self) -> Self:
        if self.votes % 2 == 0:
            raise ValueError("votes must be odd, so that a majority exists")
        return self


class ValidationSettings(SpecModel):
    """Quality assurance of both tasks' data."""

    near_duplicate_distance: int = setting(
        2,
        unit="bits",
        source=OURS,
        ge=-1,
        le=64,
        description="Images whose 64-bit perceptual hashes differ in at most this many bits are near-duplicates; "
        "-1 disables (drawn scenes look alike to such a hash). Identical pixels are always duplicates.",
    )
    near_duplicate_similarity: float | None = setting(
        None,
        source=OURS,
        gt=0,
        le=1,
        description="Images whose CLIP embeddings have at least this cosine are near-duplicates too; null: not looked "
        "at, so that taking in the images needs no model.",
    )
    held_out_share: float = setting(
        0.05, source=OURS, ge=0, lt=1, description="Share of images whose samples are kept out of training."
    )
    minimum_samples: int = setting(
        1,
        unit="samples",
        source=OURS,
        ge=1,
        le=10**9,
        description="Fewer accepted training samples than this hold the iteration.",
    )
    change: ChangeFilter = setting(ChangeFilter, source=OURS, description="How much of the picture may change.")
    clip: ClipFilter = setting(ClipFilter, source=OURS, description="CLIP filter.")
    judge: JudgeSettings = setting(JudgeSettings, source=PAPER, description="Judge.")


class RewardSettings(SpecModel):
    """Equations 5–7."""

    tau: float = setting(
        0.85, source=f"{PAPER}, equation 6", gt=0, le=1, description="Similarity from which a sentence hits."
    )
    format_weight: float = setting(0.05, source=f"{PAPER}, equation 7", ge=0, le=1, description="Weight of R_format.")
    correct_weight: float = setting(0.95, source=f"{PAPER}, equation 7", ge=0, le=1, description="Weight of R_correct.")


class ColdStart(SpecModel):
    """Supervised fine-tuning on supplied samples before reinforcement learning (an ablation of the paper)."""

    samples_uri: str = setting(
        min_length=1,
        max_length=1024,
        forms=ROWS,
        description="JSONL of rows {prompt, images, response}; image paths relative to the file.",
    )
    epochs: float = setting(1.0, source=OURS, gt=0, le=100, description="Passes over the samples.")
    learning_rate: float = setting(1e-5, source=OURS, gt=0, le=1, description="AdamW learning rate.")
    batch: int = setting(32, unit="samples", source=OURS, ge=1, le=10**6, description="Samples per optimiser step.")


class ModelRoles(SpecModel):
    """Who is critic and who is judge: `generator` (θ0), `base` (first version of its lineage, frozen), a URI, or a
    model behind an OpenAI-compatible endpoint (`openai:https://host/v1#model-name`)."""

    critic: str = setting(
        "generator", source=PAPER, min_length=1, max_length=1024, forms=ROLE, description="Writes the critiques R."
    )
    judge: str = setting(
        "base",
        source=OURS,
        min_length=1,
        max_length=1024,
        forms=ROLE,
        description="Judges edits; frozen unless asked otherwise.",
    )


class Recipe(SpecModel):
    """Everything that decides what is learnt: sizes, prompts, thresholds, reward, optimiser numbers."""

    prompts: str = setting(
        "viper",
        source=OURS,
        min_length=1,
        max_length=64,
        forms=(WORD,),
        description="Prompt set (folder of `viper/prompts`).",
    )
    seed: int = setting(0, source=OURS, ge=0, le=10**18, description="Root of every seed in the iteration.")
    stages: Literal["both", "captions", "operations", "mixed"] = setting(
        "both",
        source=PAPER,
        description="Both RL stages in turn, one of them alone, or one RL run on mixed data.",
    )
    schedule: Literal["interleaved", "upfront"] = setting(
        "interleaved",
        source=PAPER,
        description="`interleaved`: operations are written by θ1. `upfront`: all data is written by θ0.",
    )
    part_size: int = setting(
        64,
        unit="images",
        source=OURS,
        ge=1,
        le=4096,
        description="Images per part: what a killed shard repeats at most.",
    )
    captions: CaptionRecipe = setting(CaptionRecipe, description="Task 1.")
    operations: OperationRecipe = setting(OperationRecipe, description="Task 2.")
    validation: ValidationSettings = setting(ValidationSettings, description="Filters, split, quotas.")
    reward: RewardSettings = setting(RewardSettings, description="Reward.")
    models: ModelRoles = setting(ModelRoles, description="Who criticises and who judges.")
    cold_start: ColdStart | None = setting(
        None, source=PAPER, description="SFT first; null (the paper's choice) skips it."
    )
    external: ExternalData | None = setting(
        None, source=PAPER, description="Supplied samples for RL; null (the paper's choice): only synthesised ones."
    )
    analysis: Analysis = setting(Analysis, description="Attention heat maps.")
