"""The profile: infrastructure. Where and how stages run; it knows nothing of the maths."""

from __future__ import annotations

from viper.spec.base import SpecModel, setting


class StageResources(SpecModel):
    """What one stage gets."""

    shards: int = setting(1, ge=1, le=1024, description="Processes (pods) the stage is split into, one per device.")
    threads: int = setting(0, unit="threads", ge=0, description="CPU threads per process; 0: all cores.")
    retries: int = setting(2, ge=0, le=20, description="Further attempts after a failure before the iteration fails.")
    backoff_seconds: float = setting(
        5.0, unit="s", ge=0, description="Pause before the first retry; doubles each time."
    )
    deadline_seconds: int | None = setting(None, unit="s", ge=1, description="Longest run of one attempt; null: none.")


class Profile(SpecModel):
    """Infrastructure of an iteration, frozen when it starts."""

    device: str = setting("cpu", description="torch device of the engines.", pattern=r"^(cpu|cuda)(:\d+)?$")
    defaults: StageResources = setting(StageResources, description="Resources of every stage not named in `stages`.")
    stages: dict[str, StageResources] = setting(dict, description="Resources by stage name.")

    def of(self, stage: str) -> StageResources:
        """The resources of a stage."""
        return self.stages.get(stage, self.defaults)
