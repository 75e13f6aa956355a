"""The status of the resources on a cluster: what the operator writes and everybody else reads.

Readers ignore fields they do not know, so that an older reader understands a newer operator.
"""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from viper.spec.base import setting


def _seconds(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(microsecond=0)


#: Largest count of items, of anything else, and largest number that is no count.
MOST_ITEMS, MOST, LARGEST = 10**12, 2**31 - 1, 1e18
#: A point in time in UTC, whole seconds (the Kubernetes API convention).
Time = Annotated[AwareDatetime, AfterValidator(_seconds)]

Outcome = Literal["Pending", "Running", "Suspended", "Promoted", "Registered", "Held", "Failed"]
State = Literal["Waiting", "Pending", "Running", "Retrying", "Suspended", "Succeeded", "Held", "Failed"]


class StatusModel(BaseModel):
    """Base of the status models: camelCase outside, frozen, unknown fields ignored."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        allow_inf_nan=False,
    )

    def dump(self) -> dict[str, Any]:
        """Plain JSON types with camelCase keys; what is not known is left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class StatusCondition(StatusModel):
    """meta/v1 Condition."""

    type: str = setting(description="What is observed.")
    status: Literal["True", "False", "Unknown"] = setting(description="Whether it is so.")
    reason: str = setting(description="Why, in one word.")
    message: str = setting("", description="Why, for a person.")
    last_transition_time: Time = setting(description="When `status` last changed.")
    observed_generation: int | None = setting(
        None, ge=0, le=2**53, description="metadata.generation that it was observed for."
    )


class GeneratorStatus(StatusModel):
    """θ0 as it was resolved."""

    model: str | None = setting(None, description="Registered model; absent when outside the registry.")
    version: int | None = setting(
        None, ge=0, le=MOST, description="Registry version; absent when outside the registry."
    )
    uri: str = setting(description="Where its files are.")
    digest: str = setting(description="Digest over its files.")


class ItemsStatus(StatusModel):
    """Progress within a stage, over all shards."""

    done: int = setting(unit="items", ge=0, le=MOST_ITEMS, description="Items done.")
    total: int = setting(unit="items", ge=0, le=MOST_ITEMS, description="Items in all.")
    rate: float = setting(0.0, unit="items/s", ge=0, le=LARGEST, description="Items per second, in this phase.")
    eta_seconds: float | None = setting(
        None, unit="s", ge=-LARGEST, le=LARGEST, description="Estimated time left in this phase."
    )
    phase: str = setting("", description="What is being done, e.g. `caption`.")
    step: int = setting(0, ge=0, le=MOST, description="Which phase of a round that is, from 1; 0 where there are none.")
    steps: int = setting(0, ge=0, le=MOST, description="Phases of a round.")
    waiting: str = setting("", description="Why nothing is done just now, e.g. that a model is loaded.")


class StageStatus(StatusModel):
    """One stage; the first is `freeze`, which resolves the iteration."""

    name: str = setting(description="Name of the stage.")
    state: State = setting(description="Where it stands.")
    reason: str = setting("", description="Why, in one word.")
    message: str = setting("", description="Why, for a person.")
    job: str | None = setting(None, description="Name of its Job.")
    failures: int | None = setting(
        None, ge=0, le=MOST, description="How many of that Job's attempts have failed; absent: none is known of."
    )
    items: ItemsStatus | None = setting(None, description="Progress, while it runs.")
    gpu_seconds: float = setting(0.0, unit="GPU·s", ge=0, le=LARGEST, description="Time of its pods times their GPUs.")
    seconds: float | None = setting(
        None, unit="s", ge=0, le=LARGEST, description="Time of the work itself, by its manifest."
    )
    headline: str | None = setting(None, description="What it made, in a few words.")
    started_at: Time | None = setting(None, description="When its Job started.")
    active_since: Time | None = setting(
        None, description="When its pods were last let start: with the Job, or when it went on after a suspension."
    )
    active_seconds: float | None = setting(
        None,
        unit="s",
        ge=0,
        le=LARGEST,
        description="Time in which it was not suspended: before `activeSince` while it runs, in all at its end.",
    )
    finished_at: Time | None = setting(None, description="When it was complete or had failed.")


class IterationStatus(StatusModel):
    """`status` of a ViperIteration."""

    observed_generation: int | None = setting(
        None, ge=0, le=2**53, description="metadata.generation that this status describes."
    )
    conditions: list[StatusCondition] = setting(
        list, description="Succeeded (the summary) first, then Held, Suspended, GeneratorCurrent."
    )
    outcome: Outcome | None = setting(None, description="Where the iteration as a whole stands.")
    stage: str | None = setting(None, description="The stage it is at.")
    progress: str | None = setting(None, description="How far that is, in a few words.")
    generator: GeneratorStatus | None = setting(None, description="θ0 as it was resolved.")
    version: int | None = setting(None, ge=0, le=MOST, description="Registry version that it made.")
    score: str | None = setting(None, description="Held-out accuracy of that version, and its gain over θ0.")
    stages: list[StageStatus] = setting(list, max_length=32, description="Every stage, in order.")
    gpu_seconds: float = setting(0.0, unit="GPU·s", ge=0, le=LARGEST, description="Sum over all stages.")
    retries: int = setting(
        0, ge=0, le=MOST, description="How often a person had it tried again (annotation viper.dev/retry)."
    )
    run: str | None = setting(None, description="MLflow run of the iteration.")
    store: str | None = setting(None, description="URI of its folder in the object store.")


class LoopStatus(StatusModel):
    """`status` of a ViperLoop."""

    observed_generation: int | None = setting(
        None, ge=0, le=2**53, description="metadata.generation that this status describes."
    )
    conditions: list[StatusCondition] = setting(list, description="Succeeded (the summary) first.")
    iteration: int | None = setting(None, ge=0, le=MOST, description="Number of the current or last iteration, from 1.")
    of: int | None = setting(None, ge=0, le=MOST, description="Number of iterations wanted.")
    current: str | None = setting(None, description="Name of the current or last iteration.")
    version: int | None = setting(None, ge=0, le=MOST, description="Registry version promoted last.")
    gpu_seconds: float = setting(0.0, unit="GPU·s", ge=0, le=LARGEST, description="Sum over all iterations.")


Status = TypeVar("Status", bound=StatusModel)


def read_status(model: type[Status], raw: Any) -> Status:
    """A status as far as it can be understood: another version of the operator, or a person, may have written it.

    A field that does not fit is left out, so is an item of a list that lacks one; everything in a status is found out
    again from Jobs and the store.
    """
    data = copy.deepcopy(raw) if isinstance(raw, dict) else {}
    while True:
        try:
            return model.model_validate(data)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
        if not _remove(data, problem["loc"][:-1] if problem["type"] == "missing" else problem["loc"]):
            return model()


def _remove(data: Any, path: tuple[int | str, ...]) -> bool:
    """Takes out what is at a path, or the nearest thing around it; whether there was anything."""
    at = data
    trail = []
    for step in path:
        if not (step in at if isinstance(at, dict) else isinstance(at, list) and isinstance(step, int)):
            break
        trail.append((at, step))
        at = at[step]
    if not trail:
        return False
    parent, step = trail[-1]
    del parent[step]
    return True
