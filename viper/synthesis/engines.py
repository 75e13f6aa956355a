"""The engines of a stage: loaded when first used, each at most once per process."""

from __future__ import annotations

from functools import cached_property

from viper.engines import factory
from viper.engines.base import Editor, ImageSimilarityModel, Reconstructor, VisionLanguageModel
from viper.models import model_dir, policy_of
from viper.spec.stages import THETA0, stage_graph
from viper.stage import ResolvedModel, StageContext


class StageEngines:
    """Engines by their role. Roles with the same checkpoint share one loaded model."""

    def __init__(self, ctx: StageContext) -> None:
        self._ctx, self._spec = ctx, ctx.frozen.iteration.spec
        self._models: dict[str, VisionLanguageModel] = {}

    @cached_property
    def generator_model(self) -> ResolvedModel:
        """The checkpoint that writes this stage's data: θ0, or what a training stage made."""
        return policy_of(self._ctx)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The training stage whose checkpoint this stage loads, if any: part of what the manifest was made from."""
        node = next(n for n in stage_graph(self._spec.recipe) if n.name == self._ctx.stage)
        return () if node.model in (None, THETA0) else (str(node.model),)

    @property
    def generator(self) -> VisionLanguageModel:
        """Writes captions, category choices and instructions."""
        return self._vlm(self.generator_model)

    @property
    def critic(self) -> VisionLanguageModel:
        """Writes critiques."""
        return self._vlm(self._ctx.frozen.critic)

    @property
    def judge(self) -> VisionLanguageModel:
        """Judges edits."""
        return self._vlm(self._ctx.frozen.judge)

    @cached_property
    def reconstructor(self) -> Reconstructor:
        """Draws captions."""
        return factory.reconstructor(self._spec)

    @cached_property
    def editor(self) -> Editor:
        """Carries out instructions."""
        return factory.editor(self._spec)

    @cached_property
    def image_similarity(self) -> ImageSimilarityModel:
        """CLIP."""
        return factory.image_similarity(self._spec)

    def _vlm(self, model: ResolvedModel) -> VisionLanguageModel:
        if model.digest not in self._models:
            self._models[model.digest] = factory.vision_language_model(self._spec, model_dir(self._ctx, model))
        return self._models[model.digest]
