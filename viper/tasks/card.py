"""The data card of a data set: counts, funnel, balance, distributions, provenance; the same bytes for the same data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from viper.methods.stages import THETA0
from viper.modelcache.resolve import trained_model
from viper.prompts import PromptSet
from viper.stage import Manifest, ResolvedModel, StageContext
from viper.store import relative_uri
from viper.stored import enveloped
from viper.words import plural

#: Counters: edits that the judge was shown as what they are not, and those it accepted.
CONTROLS, CONTROLS_ACCEPTED = "judge.controls", "judge.controls.accepted"


def write_card(
    ctx: StageContext, sources: Sequence[str], prompts: Sequence[str], figures: Mapping[str, Any]
) -> dict[str, Any]:
    """Stores `card-<digest>.json` and `card-<digest>.md` below the stage prefix; every part must be there.

    `sources` are the stages whose funnel belongs to the data; the last one has as many parts as this one. Returns what
    the manifest's outputs say.
    """
    stage, parts = ctx.frozen.node(ctx.stage).stage, len(ctx.manifest(sources[-1]).parts)
    records = [record for i in range(parts) if (record := ctx.part(i)) is not None]
    here = Manifest.of_parts(
        stage=ctx.stage, iteration=ctx.frozen.name, identity="", inputs={}, parts=records, outputs={}
    )
    funnel = [ctx.manifest(stage) for stage in sources]
    counts = {
        "candidates": sum(p.rows for p in here.parts),
        "accepted": here.accepted,
        "train": here.counters.get("train", 0),
        "heldOut": here.counters.get("held_out", 0),
        "images": figures["images"],
    }
    if controls := here.counters.get(CONTROLS, 0):
        counts |= {"judgeControls": controls, "judgeControlsAccepted": here.counters.get(CONTROLS_ACCEPTED, 0)}
    card = {
        "title": stage.title or stage.task,
        "iteration": ctx.frozen.name,
        "counts": counts,
        "funnel": [
            {
                "stage": m.stage,
                "rows": sum(p.rows for p in m.parts),
                "accepted": m.accepted,
                "rejected": m.rejected,
                "counters": m.counters,
            }
            for m in (*funnel, here)
        ],
        "tables": figures["tables"],
        "distributions": figures["distributions"],
        "provenance": provenance(ctx, sources, prompts),
    }
    text = json.dumps(enveloped(card), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    return {
        "card": ctx.keep("card.json", text.encode()),
        "cardMarkdown": ctx.keep("card.md", markdown(card).encode()),
        "counts": counts,
    }


def provenance(ctx: StageContext, sources: Sequence[str], prompts: Sequence[str]) -> dict[str, Any]:
    """What the data was made from and with."""
    frozen, spec = ctx.frozen, ctx.frozen.iteration.spec
    templates = PromptSet.load(spec.recipe.prompts)
    roles = {"author": _author(ctx, sources[-1]), "base": frozen.base, "critic": frozen.critic, "judge": frozen.judge}
    return {
        "identity": frozen.identity,
        "images": spec.images.dump(),
        "models": {
            role: {
                "uri": relative_uri(ctx.store.uri, m.uri),
                "digest": m.digest,
                "model": m.model,
                "version": m.version,
            }
            for role, m in roles.items()
        },
        "engines": spec.engines.dump(),
        "prompts": {"set": spec.recipe.prompts, **{name: templates.digest(name) for name in prompts}},
        "seed": spec.recipe.seed,
        "validation": spec.recipe.validation.dump(),
        "manifests": {stage: ctx.manifest(stage).content_digest for stage in sources},
        "versions": frozen.versions,
    }


def _author(ctx: StageContext, stage: str) -> ResolvedModel:
    """The checkpoint that a stage wrote its rows with."""
    node = ctx.frozen.node(stage)
    return ctx.frozen.generator if node.model in (None, THETA0) else trained_model(ctx, str(node.model))


def markdown(card: Mapping[str, Any]) -> str:
    """The card for a person."""
    counts, made = card["counts"], card["provenance"]
    lines = [
        f"# {card['title']} of {card['iteration']}",
        "",
        f"{plural(counts['accepted'], 'sample')} on {plural(counts['images'], 'image')}: {counts['train']} to train "
        f"on, {counts['heldOut']} held out (split by image).",
        "",
        "## Funnel",
        "",
        *_table(
            ("stage", "rows", "accepted", "rejected because"),
            [(s["stage"], s["rows"], s["accepted"], _reasons(s["rejected"])) for s in card["funnel"]],
        ),
    ]
    if controls := counts.get("judgeControls"):
        lines += ["", "## How far the judge can be trusted", "", trust(controls, counts["judgeControlsAccepted"])]
    for name, table in card["tables"].items():
        total = sum(table.values())
        shares = [(key, n, f"{n / total:.1%}") for key, n in table.items()]
        lines += ["", f"## {name}", "", *_table(("", "samples", "share"), shares)]
    if card["distributions"]:
        keys = ("n", "mean", "min", "q1", "median", "q3", "max")
        rows = [(name, *(d.get(k, "") for k in keys)) for name, d in card["distributions"].items()]
        lines += ["", "## Distributions", "", *_table(("", *keys), rows)]
    models = [(role, m["version"] or "", m["digest"], m["uri"]) for role, m in made["models"].items()]
    lines += [
        "",
        "## Made from",
        "",
        f"Images: `{made['images']['uri']}` · prompts: `{made['prompts']['set']}` · seed: {made['seed']}",
        "",
        *_table(("role", "version", "digest", "model"), models),
        "",
    ]
    return "\n".join(lines)


def trust(controls: int, accepted: int) -> str:
    """The judge's false-accept rate in words."""
    rate = accepted / controls
    meaning = (
        "it hardly tells good edits from bad ones, so that its acceptance says nothing; take another judge"
        if rate > 0.5
        else "bad edits get into the data at about this rate"
        if rate > 0.1
        else "it tells them apart"
    )
    return (
        f"{accepted} of {plural(controls, 'known-bad edit')} (with another's instruction, or unedited) were "
        f"accepted, a false-accept rate of {rate:.0%}: {meaning}."
    )


def _reasons(rejected: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {n}" for reason, n in sorted(rejected.items(), key=lambda r: (-r[1], r[0])))


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    cells = [[str(c).replace("|", "\\|") for c in row] for row in (head, *rows)]
    cells.insert(1, ["---"] * len(head))
    return ["| " + " | ".join(row) + " |" for row in cells]
