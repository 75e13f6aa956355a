"""Whether what a specification names is there: engines, trainer, prompts, kinds of URIs. Nothing is loaded for it.

It is asked before anything is frozen, so that a name that nobody knows does not end an iteration after its first
training; what only another image has (vLLM, verl, a module of one's own) is known by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from viper.engines.endpoints import is_endpoint
from viper.engines.names import SERVED, check_place, check_trainer, missing, target_of
from viper.errors import InputError, SpecError, StoreError, ViperError, nearest
from viper.extensions import reader, written
from viper.methods.stages import FREEZE, stage_graph
from viper.modelcache.needs import FIELDS, LORA, engine_fields
from viper.modelcache.uris import check_model_uri, is_uri, model_form
from viper.prompts import check_set
from viper.spec import IterationSpec, Profile
from viper.spec.evaluation import HUB
from viper.store.places import expanded

#: Whether what this process has (files, modules) is what the process of a stage will have.
Here = Callable[[str], bool]
_Check = Callable[[], object]


def everywhere(_: str) -> bool:
    """For who runs the stages on this machine."""
    return True


def nowhere(_: str) -> bool:
    """For who only reads a file: the stages may run on another machine."""
    return False


def same_pod(profile: Profile) -> Here:
    """For the Job that freezes: a stage whose pod is made as this one has what this one has, and nothing else."""

    def pod(stage: str) -> list[object]:
        r = profile.of(stage)
        return [r.image, r.pod_template, r.env, r.model_cache, r.work_claim]

    here = pod(FREEZE)
    return lambda stage: pod(stage) == here


def check_names(spec: IterationSpec, here: Here = nowhere) -> None:
    """Resolves every name that a stage of this iteration will need.

    Args:
        here: which stages find what this process finds: only for those it matters that a directory or a module is not
            there.

    Raises:
        SpecError, InputError: something is not known, or of no kind that its field takes; all of them are told.
    """
    problems: list[ViperError] = []
    for field, check in _checks(spec, here):
        try:
            check()
        except (SpecError, InputError) as error:
            problems.append(at(field, error))
        except StoreError as error:  # the form of a URI; nothing was contacted
            problems.append(SpecError(error.what, where=field, fix=error.fix))
        except ValueError as error:  # of urlsplit
            problems.append(SpecError(f"is no address: {error}", where=field, fix="correct it"))
    together(problems, "names cannot be used")


def at(field: str, error: ViperError) -> ViperError:
    """The same error with the field that it is about."""
    where = error.where
    if field not in where:
        where = f"{field}, {where}" if where else field
    return type(error)(error.what, where=where, fix=error.fix)


def together(problems: list[ViperError], what: str) -> None:
    """Raises one error for all; nothing without any."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        kind = InputError if all(isinstance(p, InputError) for p in problems) else SpecError
        raise kind(f"{len(problems)} {what}:\n" + "\n".join(map(str, problems)), fix="correct them; nothing has begun")


def _checks(spec: IterationSpec, here: Here) -> Iterator[tuple[str, _Check]]:
    """Field and what raises where it cannot be used."""
    stages = [node.stage for node in stage_graph(spec.recipe)]
    yield "spec.recipe.prompts", lambda: check_set(spec.recipe.prompts)
    yield "spec.engines.trainer", lambda: check_trainer(spec.engines.trainer)
    if any(stage.makes == "images" for stage in stages):
        yield "spec.images.uri", lambda: _images(spec.images.uri)
    for field in FIELDS:
        users = [stage.name for stage in stages if field in engine_fields(spec, stage)]
        if users:
            yield from _engine(spec, field, any(map(here, users)))
    for path, uri in (
        ("spec.generator.uri", spec.generator.uri),
        ("spec.generator.initialUri", spec.generator.initial_uri),
    ):
        if uri is not None:
            yield path, lambda uri=uri: check_model_uri(uri)  # type: ignore[misc]
    for role in ("critic", "judge"):
        name: str = getattr(spec.recipe.models, role)
        if name not in ROLES and not is_endpoint(name):
            yield f"spec.recipe.models.{role}", lambda name=name: check_model_uri(name)  # type: ignore[misc]
    yield from _files(spec)
    if spec.evaluation.benchmarks.tasks:
        field = "spec.evaluation.benchmarks.datasets"
        yield field, lambda: _datasets(spec.evaluation.benchmarks.datasets, any(map(here, readers(spec, field))))


def readers(spec: IterationSpec, field: str) -> list[str]:
    """The stages that depend on a field (`spec.evaluation.questions`), by the settings that they declare."""
    path = field.removeprefix("spec.")
    within = {path[:end] for end, letter in enumerate(f"{path}.") if letter == "."}
    return [node.name for node in stage_graph(spec.recipe) if not within.isdisjoint(node.stage.settings)]


#: What `spec.recipe.models` may say instead of a URI.
ROLES = ("generator", "base")


def _engine(spec: IterationSpec, field: str, here: bool) -> Iterator[tuple[str, _Check]]:
    first, *rest = field.split("_")
    interface = first + "".join(word.capitalize() for word in rest)
    name: str = getattr(spec.engines, field)

    def known() -> None:
        target, place = target_of(interface, name)
        check_place(interface, name)
        if here and (why := missing(target)):
            raise SpecError(f"the engine {name!r} is not there: {why}", fix="correct it, or install its package")
        key = name.partition(":")[0]
        if place and not (is_endpoint(name) or (key in SERVED and place.startswith(("http://", "https://")))):
            if "://" in place and not is_uri(place):
                raise SpecError(f"there are no models of kind {place.partition('://')[0]}://", fix=_MODEL_KINDS)
            _directory(place, here)

    yield f"spec.engines.{interface}", known
    if field in LORA and (lora := getattr(spec.engines, LORA[field]).lora) is not None:
        yield f"spec.engines.{LORA[field]}.lora", lambda: _directory(lora, here)


_MODEL_KINDS = "use a path, file:///directory, hf://org/name@revision, s3://bucket/prefix or models:/name@alias"


def _directory(place: str, here: bool, absent: str = "correct the path, or mount its volume") -> None:
    """A path, or a URI of `viper.modelcache`. `absent`: what to do where there is no such directory."""
    if is_uri(place):
        model_form(place)
    if here and (path := _path(place)) is not None and not path.is_dir():
        raise InputError("there is no such directory", where=str(path), fix=absent)


def _path(uri: str) -> Path | None:
    """The directory that a path or file:// names; None for what lies elsewhere."""
    if uri.startswith("file:"):
        return Path(unquote(urlsplit(uri).path))
    return None if is_uri(uri) else expanded(uri)


def _images(uri: str) -> None:
    if uri.startswith("~"):  # homes are those of the stages' machine
        return
    from viper.ingest.sources import open_source

    open_source(uri)


def _files(spec: IterationSpec) -> Iterator[tuple[str, _Check]]:
    """Files that people supply; reading them is `viper.iteration.preflight`'s."""
    questions = spec.evaluation.questions
    if questions or selects_by_questions(spec):
        yield "spec.evaluation.questions", lambda: _question_set(questions)
    if (cold := spec.recipe.cold_start) is not None:
        yield "spec.recipe.coldStart.samplesUri", lambda: _file(cold.samples_uri)
    if (external := spec.recipe.external) is not None:
        yield "spec.recipe.external.uri", lambda: _file(external.uri)


def selects_by_questions(spec: IterationSpec) -> bool:
    """Whether a training stage chooses its checkpoint by the evaluation's `selection` questions."""
    from viper.training.stage import training_settings

    trained = (node.stage for node in stage_graph(spec.recipe) if node.data)
    return any(training_settings(spec, stage).select == "heldOutPerception" for stage in trained)


def _question_set(uri: str) -> None:
    if not uri:
        raise SpecError(
            "is empty, and a training selects its checkpoint by heldOutPerception",
            fix=f"name a question set ({written('questions')} or a JSONL file with selection questions), or set "
            "select to last or heldOutReward",
        )
    if reader("questions", uri) is None:
        _file(uri)


def _file(uri: str) -> None:
    if uri.startswith("~"):
        return
    from viper.beside import beside

    beside(uri)


def _datasets(place: str, here: bool) -> None:
    if place != HUB:
        near = nearest(place.partition("://")[0], [HUB], "a directory, file:///folder or s3://bucket/prefix")
        _directory(place, here, near)
