"""The engines of a stage: loaded when first used, closed when the device has no room for them beside the next one."""

from __future__ import annotations

from typing import Any, cast

from viper.engines import factory
from viper.engines.base import Editor, ImageSimilarityModel, Reconstructor, VisionLanguageModel
from viper.engines.endpoints import is_endpoint
from viper.engines.memory import close, device_memory
from viper.errors import UnfitEngineError
from viper.methods.stages import THETA0
from viper.modelcache.resolve import model_dir, policy_of
from viper.modelcache.stage import local_spec
from viper.spec.pods import amount
from viper.stage import ResolvedModel, StageContext

#: Role → interface (a key of `viper.engines.factory.ENGINES`) and field of `spec.engines` with the engine's settings.
ROLES = {
    "generator": ("vlm", "generation"),
    "critic": ("vlm", "generation"),
    "judge": ("vlm", "generation"),
    "reconstructor": ("reconstructor", "reconstruction"),
    "editor": ("editor", "editing"),
    "image_similarity": ("imageSimilarity", ""),
}
GIB = 2**30


class StageEngines:
    """Engines by their role. Roles with the same checkpoint share one loaded model."""

    def __init__(self, ctx: StageContext) -> None:
        self._ctx, self._spec = ctx, ctx.frozen.iteration.spec
        self._loaded: dict[str, Any] = {}
        self._needs: dict[str, int] = {}
        self._policy: ResolvedModel | None = None

    @property
    def generator_model(self) -> ResolvedModel:
        """The checkpoint that writes this stage's data: θ0, or what a training stage made."""
        self._policy = self._policy or policy_of(self._ctx)
        return self._policy

    @property
    def inputs(self) -> tuple[str, ...]:
        """The training stage whose checkpoint this stage loads, if any: part of what the manifest was made from."""
        model = self._ctx.frozen.node(self._ctx.stage).model
        return () if model in (None, THETA0) else (str(model),)

    @property
    def generator(self) -> VisionLanguageModel:
        """Writes captions, category choices and instructions."""
        return cast(VisionLanguageModel, self._engine("generator"))

    @property
    def critic(self) -> VisionLanguageModel:
        """Writes critiques."""
        return cast(VisionLanguageModel, self._engine("critic"))

    @property
    def judge(self) -> VisionLanguageModel:
        """Judges edits."""
        return cast(VisionLanguageModel, self._engine("judge"))

    @property
    def reconstructor(self) -> Reconstructor:
        """Draws captions."""
        return cast(Reconstructor, self._engine("reconstructor"))

    @property
    def editor(self) -> Editor:
        """Carries out instructions."""
        return cast(Editor, self._engine("editor"))

    @property
    def image_similarity(self) -> ImageSimilarityModel:
        """CLIP."""
        return cast(ImageSimilarityModel, self._engine("image_similarity"))

    # ---- memory --------------------------------------------------------------------------------------------------

    def check(self, *roles: str) -> None:
        """Raises `UnfitEngineError` when one of these roles needs more memory than the stage's device has.

        Nothing is loaded for it.
        """
        there = self._memory()
        if there is None:
            return
        for role in roles:
            if (needed := self._needed(role)) > there:
                interface, settings = ROLES[role]
                raise UnfitEngineError(
                    f"the {role} needs {needed / GIB:.1f} GiB of GPU memory, a GPU has {there / GIB:.1f}",
                    where=f"spec.engines.{settings or interface}",
                    fix="take a smaller model, or fewer pixels"
                    if interface != "reconstructor"
                    else "set offload: model",
                )

    def enter(self, role: str) -> None:
        """From here on this role is needed: others are closed unless the device has room for all of them."""
        there, key = self._memory(), self._key(role)
        others = [k for k in self._loaded if k != key]
        if there is None or not others:
            return
        if sum(self._needs[k] for k in others) + self._needed(role) > there:
            for other in others:
                close(self._loaded.pop(other))

    def _memory(self) -> int | None:
        """Bytes of one GPU: by the profile, else by the device; None without one."""
        said = self._spec.profile.of(self._ctx.stage).gpu_memory
        return device_memory(self._spec.profile.device) if said is None else int(amount(said))

    def _needed(self, role: str) -> int:
        key = self._key(role)
        if key not in self._needs:
            interface, name = ROLES[role]
            model = self._model(role)
            if model is not None and is_endpoint(model.uri):
                self._needs[key] = 0
                return 0
            engines = local_spec(self._ctx.frozen, role if model is None else "vlm").engines
            settings = getattr(engines, name) if name else None
            directory = () if model is None else (model_dir(self._ctx, model),)
            self._needs[key] = factory.memory_needed(interface, engines.of(interface), settings, *directory)
        return self._needs[key]

    # ---- loading -------------------------------------------------------------------------------------------------

    def _key(self, role: str) -> str:
        model = self._model(role)
        return role if model is None else model.digest

    def _model(self, role: str) -> ResolvedModel | None:
        """The checkpoint behind a vision-language model's role."""
        if role == "generator":
            return self.generator_model
        frozen = self._ctx.frozen
        return {"critic": frozen.critic, "judge": frozen.judge}.get(role)

    def _engine(self, role: str) -> Any:
        key = self._key(role)
        if key not in self._loaded:
            with self._ctx.progress.waits(f"loading the {role.replace('_', ' ')}", self._place(role)):
                self._needed(role)
                self._loaded[key] = self._load(role)
        return self._loaded[key]

    def _place(self, role: str) -> str:
        """What is loaded, in words: a checkpoint by its place, else the engine."""
        model = self._model(role)
        return self._spec.engines.of(ROLES[role][0]) if model is None else model.uri

    def _load(self, role: str) -> Any:
        model = self._model(role)
        if model is not None and is_endpoint(model.uri):
            return factory.endpoint_model(self._spec, model.uri)
        if model is not None:
            return factory.vision_language_model(local_spec(self._ctx.frozen, "vlm"), model_dir(self._ctx, model))
        makers = {
            "reconstructor": factory.reconstructor,
            "editor": factory.editor,
            "image_similarity": factory.image_similarity,
        }
        return makers[role](local_spec(self._ctx.frozen, role))
