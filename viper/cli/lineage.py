"""`viper lineage VERSION`: where a model version comes from, down to the samples and their rollouts."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from viper.terminal import columns, printed, tree
from viper.words import plural

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.tree import Tree

    from viper.lineage.records import Checkpoint, IterationRecord, StageRecord, VersionRecord
    from viper.lineage.samples import SampleRecord
    from viper.registry import ModelVersion, Registry

#: Samples listed for a person; `--json` has all of them.
SHOWN = 40
_DASH = "–"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `lineage`."""
    parser = subparsers.add_parser(
        "lineage",
        help="where a model version comes from: iteration, data, the checkpoints that wrote it",
        description="Walks from a version to the iteration that made it, its stages, its samples and the checkpoints "
        "that wrote them, and on to the version before, back to the base. Reads MLflow and the object store.",
    )
    parser.add_argument(
        "version", metavar="VERSION", help="models:/name/3, models:/name@alias; of a run's model: 3, or an alias"
    )
    parser.add_argument("--dir", type=Path, metavar="DIR", help="run directory (default: the latest in runs/)")
    parser.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow (default: that of DIR, else $MLFLOW_TRACKING_URI)"
    )
    parser.add_argument("--samples", action="store_true", help="the samples of its iteration and how they scored")
    parser.add_argument("--sample", metavar="ID", help="one sample of the lineage: its id, or how that begins")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> int:
    """Prints the walk."""
    from viper.lineage.archive import Records
    from viper.lineage.samples import find_sample, samples
    from viper.lineage.walk import walk

    registry, found = _asked(args)
    version = walk(Records(registry), found)
    if args.sample is not None:
        sample = find_sample(version, args.sample)
        _print(args, sample.dump(), (_sample(sample),))
        return 0
    listed = samples(version.iteration) if args.samples and version.iteration is not None else None
    dump = version.dump() if listed is None else {**version.dump(), "samples": [s.dump() for s in listed]}
    _print(args, dump, (*map(_version, version.chain()), *(() if listed is None else sample_table(listed))))
    return 0


def _print(args: argparse.Namespace, dump: Mapping[str, Any], text: Iterable[RenderableType]) -> None:
    if args.json:
        print(json.dumps(dump, indent=1, ensure_ascii=False))
        return
    from rich.console import Group

    print(printed(Group(*text), sys.stdout))


def _asked(args: argparse.Namespace) -> tuple[Registry, ModelVersion]:
    """The registry, and the version that is meant."""
    from viper.cli.render import iterations
    from viper.cli.status import latest, opened
    from viper.errors import InputError
    from viper.registry import existing_registry

    named = re.fullmatch(r"(?:models:/)?([^@/]+)(?:@|/(?=\d+$))([^@/]+)", args.version)
    uri = args.tracking_uri
    if uri is None and args.dir is None:
        uri = os.environ.get("MLFLOW_TRACKING_URI") or None
    model, reference = named.groups() if named else (None, args.version)
    if uri is None or model is None:
        if model is None and args.dir is None and args.tracking_uri is not None:
            raise InputError("says nothing of the model", where=args.version, fix="write models:/name/version")
        _, record = opened(args.dir or latest())
        model = model or next(iterations(record.resource)).spec.model
        uri = record.tracking if args.tracking_uri is None else args.tracking_uri
    registry = existing_registry(uri)
    return registry, registry.resolve(model, reference)


def _version(v: VersionRecord) -> Tree:
    title = f"{v.model} version {v.version}"
    title += "".join(f" @{alias}" for alias in v.aliases)
    words = {"base": "the base", "foreign": "of foreign origin"}
    about = words.get(v.origin, "") or (f"{v.decision}: {v.reason}" if v.decision else "")
    children = [tree(f"weights {short(v.digest)}  {v.uri}")]
    if v.scores:
        children.append(tree("scores", map(tree, columns(v.scores.items(), least={0: 11}))))
    if v.iteration is not None:
        children.append(_iteration(v.iteration))
    if v.parent is not None:
        children.append(tree(f"from version {v.parent.version} (below)"))
    return tree("  ".join(x for x in (title, about) if x), children, v.problems)


def _iteration(i: IterationRecord) -> Tree:
    roles = tree(
        f"θ0: {_origin(i.generator)}; base: {_origin(i.base)}; critic: {_role(i.critic)}; judge: {_role(i.judge)}"
    )
    title = f"iteration {i.name}  {i.uri}  identity {short(i.identity)}  MLflow run {i.run}"
    stages = columns((s.name, _stage(s)) for s in i.stages)
    return tree(title, (roles, tree(f"images {i.images}"), *map(tree, stages)))


def _stage(s: StageRecord) -> str:
    if s.state == "missing":
        return "no manifest"
    said = []
    if s.parts:
        rejected = sum(s.rejected.values())
        said.append(plural(s.accepted, "row") + (f", {rejected} rejected" if rejected else ""))
    if s.samples:
        said.append(", ".join(f"{n} {name.replace('_', ' ')}" for name, n in s.samples.items()))
    if s.author is not None and s.made is not None:
        said.append(f"trained {_who(s.author)}")
    elif s.author is not None and s.parts:
        said.append(f"{'last of all ' if s.facts.get('final') else 'by '}{_who(s.author)}")
    if s.critic is not None:
        said.append(f"{s.second} {_role(s.critic)}")
    if s.made is not None:
        said.append(f"→ {s.made.name} {short(s.made.digest)}")
    said += [f"{name.replace('_', ' ')} {value}" for name, value in s.facts.items()]
    doubt = "" if s.state in ("as recorded", "not recorded") else f"  {s.state.upper()}"
    return f"{short(s.manifest)}{doubt}  {'; '.join(said)}"


def _who(c: Checkpoint) -> str:
    """`θ0 = version 2`, `θ1 of train-captions (sha256:…)`."""
    if c.version is not None:
        return f"{c.name} = version {c.version}"
    return f"{c.name} of {c.stage} ({short(c.digest)})" if c.stage else f"{c.name} ({c.uri or short(c.digest)})"


def _origin(c: Checkpoint) -> str:
    return f"version {c.version}" if c.version is not None else f"{c.uri or 'no version'} ({short(c.digest)})"


def _role(c: Checkpoint) -> str:
    return c.name if c.name in ("θ0", "base") else _who(c)


def short(digest: str) -> str:
    """Enough of a digest to tell it from others."""
    kind, _, digits = digest.rpartition(":")
    return f"{kind}:{digits[:12]}" if kind else digits[:12]


def sample_table(listed: Sequence[SampleRecord]) -> Iterator[RenderableType]:
    """One line a sample: who wrote it, and how its outputs scored in the first and the last step that had it."""
    yield ""
    yield f"{plural(len(listed), 'sample')}, {sum(bool(s.rollouts) for s in listed)} of them with rollouts"
    rows: list[tuple[str, ...]] = [("sample", "stage", "split", "written by", "outputs", "reward", "recall", "items")]
    for s in listed[:SHOWN]:
        author = _DASH if s.author is None else s.author.name
        outputs = str(sum(r.outputs for r in s.rollouts))
        ends = (_ends([getattr(r, name) for r in s.rollouts]) for name in ("reward", "recall", "items"))
        rows.append((s.sample_id[:12], s.stage, s.split, author, outputs, *ends))
    yield from columns(rows, right=(4,))
    if len(listed) > SHOWN:
        yield f"… and {len(listed) - SHOWN} more (--json lists all)"


def _ends(values: Sequence[float]) -> str:
    if not values:
        return _DASH
    return f"{values[0]:.2f}" if len(values) == 1 else f"{values[0]:.2f} → {values[-1]:.2f}"


def _sample(s: SampleRecord) -> Tree:
    """One sample with its passport and its rollouts."""
    state = f"accepted, {s.split}" if s.accepted else f"rejected: {s.reason}"
    image = f"image {s.image_id}" + (f"  {s.image_source}" if s.image_source else "")
    written = [f"written by {_who(s.author)}"] if s.author else []
    written += [f"criticised by {_who(s.critic)}"] if s.critic else []
    texts = [f"{name}: {_text(value)}" for name, value in s.texts.items()]
    passport = [
        f"{name}: {json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value}"
        for name, value in s.passport.items()
        if name not in ("image_id", "task")
    ]
    rollouts = [
        f"{r.stage} step {r.step}: {plural(r.outputs, 'output')}, reward {r.reward:.3f}, recall {r.recall:.2f}, "
        f"items {r.items:.1f}, duplicates {r.duplicates:.2f}"
        for r in s.rollouts
    ]
    above = (f"{s.stage} of {s.iteration}: {state}", image, *written, *texts)
    below = tree("passport", map(tree, passport)), tree("rollouts" if rollouts else "no rollouts", map(tree, rollouts))
    return tree(f"sample {s.sample_id}", (*map(tree, above), *below))


def _text(value: Any) -> str:
    """Model output on one line, without control characters."""
    from viper.report.words import one_line

    return " | ".join(one_line(v, 300) for v in value) if isinstance(value, list) else one_line(value, 600)
