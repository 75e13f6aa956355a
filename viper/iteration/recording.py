"""The MLflow record of a stage: one nested run with its parameters, metrics, curves, datasets and artifacts.

Called with the complete manifest right before it is written, so that what is "done" is also recorded. Everything may
be recorded again: run, parameters and points that are there already are not recorded twice.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from viper.analysis.cloud import page as cloud_page
from viper.analysis.reasoning import Reasoning
from viper.analysis.records import keep_reasoning
from viper.methods.stages import Stage
from viper.registry import Registry
from viper.registry.names import metric_names
from viper.spec import IterationSpec
from viper.stage import Manifest, StageContext
from viper.stage.manifest import manifest_key
from viper.store import child_uri

#: Paths of the specification that every stage depends on.
_COMMON = ("recipe.seed", "recipe.prompts", "recipe.stages")
_LARGEST_ARTIFACT = 8 << 20  # bytes; larger objects stay where they are, in the store
#: What `StageContext.keep` adds to a name: a run has one artifact of it.
_DIGEST = re.compile(r"-[0-9a-f]{16}(?=\.)")
#: Characters of a domain that its metrics are called by; what stands before it is shorter than the rest of a name.
_LONGEST_DOMAIN = 160


def record_stage(ctx: StageContext, manifest: Manifest, registry: Registry | None = None) -> None:
    """Records a stage; raises `RegistryError` when MLflow cannot be used (the stage is then tried again)."""
    frozen = ctx.frozen
    registry = registry or Registry(frozen.tracking.uri)
    parent = frozen.tracking.parent_run
    declared = frozen.node(ctx.stage).stage
    run = registry.stage_run(parent, ctx.stage, tags(ctx, manifest))
    registry.log_params(run, params(frozen.iteration.spec, declared))
    registry.log_curve(run, [*_curve(ctx, manifest), {"step": 0, **metrics(manifest)}])
    training, decides = declared.makes == "model", declared.makes == "decision"
    for stage, digest in manifest.inputs.items():
        # A training stage among the inputs is a model, not data.
        if decides or frozen.node(stage).stage.makes == "model":
            continue
        uri = child_uri(ctx.store.uri, manifest_key(frozen.prefix, stage))
        context = "training" if training else "input"
        profile = _profile(ctx.manifest(stage))
        for owner in (run, parent) if training else (run,):
            registry.log_dataset(owner, f"{frozen.name}/{stage}", uri, digest, context=context, profile=profile)
    if questions := manifest.outputs.get("questions"):
        profile = {"questions": questions["n"]}
        for owner in (run, parent):
            registry.log_dataset(
                owner, "questions", questions["uri"], questions["digest"], context="evaluation", profile=profile
            )
    for task, about in manifest.outputs.get("benchmarks", {}).get("tasks", {}).items():
        profile = {"questions": about["n"], "version": about["version"]}
        for owner in (run, parent):
            registry.log_dataset(owner, task, about["dataset"], about["data"], context="evaluation", profile=profile)
    if decides or declared.makes == "scores":
        registry.log_curve(parent, [{"step": 0, **metrics(manifest)}])
    if decides:
        kept = ("decision", "reason", "version", "previous_version")
        registry.log_tags(parent, {f"viper.{key}": manifest.outputs[key] for key in kept if key in manifest.outputs})
    _artifacts(ctx, manifest, registry, run)
    if training and (found := keep_reasoning(ctx.store, ctx.prefix, manifest)) is not None:
        _words(found, registry, run, f"{frozen.name}, {ctx.stage}")
    registry.finish_run(run)


def _words(found: Reasoning, registry: Registry, run: str, title: str) -> None:
    """What is said in the reasoning of the first and of the last step, and how often operations are named."""
    clouds = ((f"step {found.first_step}", found.before), (f"step {found.last_step}", found.after))
    registry.log_text(run, cloud_page(title, clouds), "reasoning.html")
    registry.log_text(run, json.dumps(found.dump(), indent=1, ensure_ascii=False), "reasoning.json")
    registry.log_curve(
        run,
        [
            {"step": step, "reasoning/operations_per_thousand": words.operation_rate, "reasoning/words": words.tokens}
            for step, words in ((found.first_step, found.before), (found.last_step, found.after))
        ],
    )


def params(spec: IterationSpec, stage: Stage) -> dict[str, Any]:
    """The part of the specification that concerns a stage, flattened: `recipe.captions.training.steps` → value."""
    found: dict[str, Any] = {}
    for path in (*_COMMON, *stage.settings):
        found |= dict(_leaves(path, to_jsonable_python(spec.value_at(path), by_alias=True)))
    names = metric_names(found)
    return {names[path]: value for path, value in found.items()}


def tags(ctx: StageContext, manifest: Manifest) -> dict[str, str]:
    """Where the stage's data and models are, by content."""
    frozen = ctx.frozen
    found = {
        "viper.store": f"{ctx.store.uri}",
        "viper.prefix": ctx.prefix,
        "viper.manifest": manifest.content_digest,
        "viper.generator_digest": frozen.generator.digest,
    }
    if isinstance(model := manifest.outputs.get("model"), Mapping):
        found |= {"viper.model_uri": str(model["uri"]), "viper.model_digest": str(model["digest"])}
    if frozen.generator.version is not None:
        found["viper.generator_version"] = str(frozen.generator.version)
    return found | {f"viper.versions.{name}": version for name, version in frozen.versions.items()}


def metrics(manifest: Manifest) -> dict[str, float]:
    """Counts, seconds, scores and every number among the outputs, named as MLflow allows.

    `rows/accepted`, `rows/rejected`, `rejected/<reason>`, `counters/<name>`, `accuracy/<model>/<domain>`,
    `difference/<pair>/<domain>` with `p_two_sided/…`, `benchmark/<model>/<task>[/<domain>]` and
    `benchmark_difference/<pair>/<task>` with `benchmark_p_worse/…`, and numbers of the outputs under their own names.
    """
    found: dict[str, float] = {"seconds": manifest.seconds}
    if manifest.parts:
        found |= {"rows/accepted": manifest.accepted, "rows/rejected": sum(manifest.rejected.values())}
    found |= {f"rejected/{reason}": count for reason, count in manifest.rejected.items()}
    found |= {f"counters/{name}": count for name, count in manifest.counters.items()}
    special = {"scores", "comparisons", "model", "questions", "checkpoints", "benchmarks"}
    for name, value in manifest.outputs.items():
        if name not in special:
            found |= {k: v for k, v in _leaves(name, value, "/") if _is_number(v)}
    scores, compared = manifest.outputs.get("scores", {}), manifest.outputs.get("comparisons", {})
    called = _domains(*scores.values(), *compared.values())
    for model, by_domain in scores.items():
        found |= {f"accuracy/{model}/{called[domain]}": score["accuracy"] for domain, score in by_domain.items()}
    for pair, by_domain in compared.items():
        for domain, c in by_domain.items():
            found |= {f"{key}/{pair}/{called[domain]}": c[key] for key in ("difference", "p_two_sided")}
    found |= dict(_benchmark_metrics(manifest.outputs.get("benchmarks", {})))
    names = metric_names(found)
    return {names[name]: float(value) for name, value in found.items()}


def _domains(*by_domain: Mapping[str, Any]) -> dict[str, str]:
    """What each domain is called in names of metrics: the same for all models, and no two alike."""
    return metric_names((domain for found in by_domain for domain in found), _LONGEST_DOMAIN)


def _benchmark_metrics(benchmarks: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    scores = benchmarks.get("scores", {})
    for model, by_task in scores.items():
        for task, score in by_task.items():
            yield f"benchmark/{model}/{task}", score["score"]
            called = _domains(*(of_model[task].get("domains", {}) for of_model in scores.values() if task in of_model))
            for domain, within in score.get("domains", {}).items():
                yield f"benchmark/{model}/{task}/{called[domain]}", within["accuracy"]
    for pair, by_task in benchmarks.get("comparisons", {}).items():
        for task, c in by_task.items():
            for key in ("difference", "p_worse"):
                yield f"benchmark_{key}/{pair}/{task}", c[key]


def _leaves(path: str, value: Any, separator: str = ".") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(f"{path}{separator}{key}", inner, separator)
    else:
        yield path, value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _profile(manifest: Manifest) -> dict[str, Any]:
    return {"rows": manifest.accepted, "rejected": manifest.rejected, "counters": manifest.counters}


def _curve(ctx: StageContext, manifest: Manifest) -> list[dict[str, float]]:
    name = manifest.outputs.get("curves")
    if not isinstance(name, str):
        return []
    return [json.loads(line) for line in ctx.store.get(f"{ctx.prefix}/{name}").splitlines()]


def _texts(outputs: Mapping[str, Any]) -> Iterator[str]:
    """The outputs that are texts, or lists of them."""
    for value in outputs.values():
        yield from (v for v in (value if isinstance(value, list) else [value]) if isinstance(v, str))


def _artifacts(ctx: StageContext, manifest: Manifest, registry: Registry, run: str) -> None:
    """The manifest, and every object of the stage that its outputs name (data card, curves …), unless it is large."""
    registry.log_text(run, json.dumps(manifest.dump(), indent=1, ensure_ascii=False), "manifest.json")
    with tempfile.TemporaryDirectory(prefix="viper-record-") as folder:
        for value in _texts(manifest.outputs):
            if not re.fullmatch(r"[\w.-]+\.(json|jsonl|md|html|csv|txt|png)", value):
                continue
            info = ctx.store.stat(f"{ctx.prefix}/{value}")
            if info is not None and info.size <= _LARGEST_ARTIFACT:
                path = Path(folder) / _DIGEST.sub("", value)
                ctx.store.get_file(info.key, path)
                registry.log_artifact(run, path)
