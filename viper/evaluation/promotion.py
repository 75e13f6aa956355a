"""The stage `promote`: the final checkpoint becomes a model version; the alias moves if the gate lets it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from viper.errors import StageError
from viper.evaluation.gate import Candidate, Decision, decide, is_measured, is_number
from viper.evaluation.stage import THETA0, overall
from viper.evaluation.statistics import OVERALL
from viper.evaluation.summary import below_floor, has_result, in_order
from viper.methods import stages
from viper.methods.stages import making
from viper.modelcache.resolve import trained_model
from viper.registry import LOCKS, AliasMovedError, Registry
from viper.registry.moves import set_alias
from viper.registry.tags import BASE_VERSION, PARENT_VERSION
from viper.spec.benchmarks import BENCHMARKS
from viper.spec.evaluation import Evaluation
from viper.stage import Manifest, ResolvedModel, StageContext
from viper.store import child_uri


def promote(ctx: StageContext, registry: Registry) -> Manifest | None:
    """Runs the stage. Every step may be repeated: one version per digest, an alias that is compared before it is set.

    Once another attempt has finished the stage the alias is its owner's again, and what it was moved to since stands:
    `SupersededError`.

    Raises:
        RegistryError, StoreError: MLflow or the store cannot be used; nothing is lost, the next attempt goes on.
        StageError: the evaluation is of other models than the ones to promote.
    """
    if ctx.shard != 0:
        return None
    frozen = ctx.frozen
    spec = frozen.iteration.spec
    scores, last = _judged(ctx)
    evaluation, model = ctx.manifest(scores), trained_model(ctx, last)
    evaluated = evaluation.outputs.get("checkpoints", {}).get(evaluation.outputs["final"], model.digest)
    if evaluated != model.digest:
        raise StageError("the evaluation is of another model than the one to promote", where=f"{scores}, {last}")
    ctx.progress.begin("register", 0)
    version = _register(ctx, registry, model)
    ctx.tell(f"{model.uri} is version {version} of {spec.model}")
    ctx.progress.begin("decide", 0)
    candidate = _candidate(ctx, evaluation.outputs, version, registry.get_alias(spec.model, spec.promotion.alias))
    policy, gate = spec.promotion.policy, spec.promotion.gate
    decision = decide(policy, spec.promotion.alias, gate.significance, candidate, gate.unmeasured)
    ctx.give_way()
    if decision.outcome == "promoted":
        try:
            target, who = (spec.model, spec.promotion.alias), f"iteration {frozen.name}"
            set_alias(registry, target, version, frozen.alias_version, store=ctx.store, who=who)
        except AliasMovedError as error:
            decision = Decision("held", f"alias moved meanwhile: {error.what}")
    ctx.give_way()
    if version != frozen.generator.version:
        outcome = {"viper.decision": decision.outcome, "viper.reason": decision.reason}
        registry.set_tags(spec.model, version, outcome)
    ctx.tell(f"{decision.outcome}: {decision.reason}")
    return ctx.finish(
        (scores, last),
        outputs={
            "decision": decision.outcome,
            "reason": decision.reason,
            "version": version,
            "alias": spec.promotion.alias,
            "previous_version": frozen.alias_version,
        },
    )


def _judged(ctx: StageContext) -> tuple[str, str]:
    """The stage that made the scores, and the one that made the model that is decided about."""
    node = ctx.frozen.node(ctx.stage)
    scores = making(map(ctx.frozen.node, node.needs), "scores")
    if not scores or node.model in (None, stages.THETA0):
        raise StageError(
            "there is nothing to decide about",
            where=f"{ctx.frozen.name}, {node.name}",
            fix="it needs a stage that makes scores, and one that makes a model",
        )
    return scores[-1].name, str(node.model)


def _register(ctx: StageContext, registry: Registry, model: ResolvedModel) -> int:
    """The version of the final checkpoint; training that kept the starting weights leads back to θ0's own version."""
    frozen = ctx.frozen
    name = frozen.iteration.spec.model
    if model.digest == frozen.generator.digest and frozen.generator.version is not None:
        return frozen.generator.version
    tags = {**lineage(ctx), LOCKS: ctx.store.uri}
    for known in registry.versions(name):
        # The same weights came out of another iteration: the lineage they were registered with stays.
        if known.digest == model.digest and known.tags.get("viper.iteration") not in (None, frozen.name):
            return known.version
    return registry.register(name, model.uri, model.digest, run=frozen.tracking.parent_run, tags=tags)


def lineage(ctx: StageContext) -> dict[str, str]:
    """Tags of the version: where it comes from (parent version, iteration, manifests of every stage) and its scores."""
    frozen = ctx.frozen
    evaluation = ctx.manifest(_judged(ctx)[0]).outputs
    tags = {
        "viper.iteration": frozen.name,
        "viper.identity": frozen.identity,
        "viper.store": child_uri(ctx.store.uri, f"iterations/{frozen.name}"),
        "viper.parent_digest": frozen.generator.digest,
        "viper.parent_uri": frozen.generator.uri,
        "viper.base_digest": frozen.base.digest,
        "viper.evaluation_digest": evaluation.get("questions", {}).get("digest", ""),
        "viper.scores": json.dumps(_accuracies(evaluation.get("scores", {})), ensure_ascii=False),
    }
    if frozen.generator.version is not None:
        tags[PARENT_VERSION] = str(frozen.generator.version)
        tags[BASE_VERSION] = str(frozen.base.version or frozen.generator.version)
    before = set(frozen.node(ctx.stage).needs)
    for node in reversed(frozen.nodes):
        if node.name in before:
            before.update(node.needs)
            tags[f"viper.manifest.{node.name}"] = ctx.manifest(node.name).content_digest
    for name, by_domain in evaluation.get("scores", {}).items():
        if (s := by_domain.get(OVERALL)) is None:
            continue
        tags[f"viper.score.{name}"] = f"{s['accuracy']:.4f} [{s['low']:.4f}, {s['high']:.4f}] of {s['n']}"
    for name, by_task in evaluation.get("benchmarks", {}).get("scores", {}).items():
        tags[f"viper.benchmarks.{name}"] = json.dumps({task: round(s["score"], 4) for task, s in by_task.items()})
    return tags


def _accuracies(scores: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, float]]:
    return {m: {d: round(s["accuracy"], 4) for d, s in by_domain.items()} for m, by_domain in scores.items()}


def _candidate(ctx: StageContext, outputs: Mapping[str, Any], version: int, alias_now: int | None) -> Candidate:
    final, scores = outputs["final"], outputs["scores"]
    settings = ctx.frozen.iteration.spec.evaluation
    found = outputs.get("benchmarks", {}).get("scores", {})
    return Candidate(
        version=version,
        name=final,
        comparison=_compared(outputs, final),
        before=overall(scores.get(THETA0)),
        after=overall(scores.get(final)),
        alias_at_start=ctx.frozen.alias_version,
        alias_now=alias_now,
        unchanged=version == ctx.frozen.generator.version,
        benchmarks=_mean(outputs, final),
        below=tuple(below_floor(found.get(final, {}), settings.benchmarks.tasks)),
        missing=tuple(missing(settings, outputs)),
    )


def missing(settings: Evaluation, outputs: Mapping[str, Any]) -> list[str]:
    """What was to be asked of θ0 and the final checkpoint and has no result, in words; empty when nothing is missing.

    Args:
        settings: what was asked for.
        outputs: of the manifest of `evaluate`.
    """
    final = outputs["final"]
    said = ["no comparison of the questions"] if settings.questions and _compared(outputs, final) is None else []
    tasks = in_order(settings.benchmarks.tasks, BENCHMARKS)
    of_models = outputs.get("benchmarks", {}).get("scores", {})
    without = [
        f"no result of {task} by {' and '.join(names)}"
        for task in tasks
        if (names := [m for m in (THETA0, final) if not has_result(of_models.get(m, {}).get(task))])
    ]
    if tasks and not without and _mean(outputs, final) is None:
        without = ["no comparison of the benchmarks' mean"]
    return said + without


def _compared(outputs: Mapping[str, Any], final: str) -> Mapping[str, Any] | None:
    found = outputs["comparisons"].get(f"{final}-{THETA0}", {}).get(OVERALL)
    return found if is_measured(found) else None


def _mean(outputs: Mapping[str, Any], final: str) -> Mapping[str, Any] | None:
    found = outputs.get("benchmarks", {})
    compared = found.get("comparisons", {}).get(f"{final}-{THETA0}", {}).get(OVERALL)
    means = [found.get("scores", {}).get(m, {}).get(OVERALL, {}).get("score") for m in (THETA0, final)]
    if not is_measured(compared) or not all(map(is_number, means)):
        return None
    return {**compared, "before": means[0], "after": means[1]}
