"""The static report: one self-contained HTML file without scripts or requests, from the object store alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from viper.errors import StoreError
from viper.evaluation.stage import THETA0
from viper.evaluation.statistics import OVERALL
from viper.report import attention, benchmarks, charts, reasoning, words
from viper.report.collect import REWARD, IterationReport, LoopReport, collect
from viper.report.gallery import ITERATIONS, samples
from viper.report.guarded import guarded
from viper.report.outputs import outputs
from viper.report.settings import settings
from viper.report.svg import forest
from viper.store import ObjectStore
from viper.words import plural

if TYPE_CHECKING:
    from jinja2 import Template

FILE_NAME = "index.html"


def build(store: ObjectStore, names: Iterable[str], out_dir: Path, *, registry_lines: Sequence[str] = ()) -> Path:
    """Writes `out_dir/index.html`; the same store content gives the same bytes.

    Args:
        store: where the iterations are.
        names: iterations in order; unfinished and missing ones are shown as such.
        out_dir: made when it is not there; an earlier report in it is replaced at once.
        registry_lines: the commands that browse the registry, shown as they are.

    Raises:
        StoreError: when the store cannot be read or the page cannot be written.
    """
    return write_page(store, collect(store, names), out_dir, registry_lines=registry_lines)


def write_page(store: ObjectStore, report: LoopReport, out_dir: Path, *, registry_lines: Sequence[str] = ()) -> Path:
    """`build` of what was collected."""
    html = render(store, report, registry_lines)
    path = out_dir / FILE_NAME
    temporary = out_dir / f".{FILE_NAME}.tmp"
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        temporary.write_text(html, encoding="utf-8")
        temporary.replace(path)
    except OSError as e:
        raise StoreError(f"the report cannot be written: {e.strerror or e}", where=str(path)) from e
    return path


@cache
def _template() -> Template:
    """The page's, which is compiled once."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("viper.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"svg": Markup, "duration": words.duration, "percent": words.percent}
    return environment.get_template("page.html.j2")


def render(store: ObjectStore, report: LoopReport, registry_lines: Sequence[str] = ()) -> str:
    """The page's HTML. Jinja escapes every value; only charts of our own making are marked safe."""
    from markupsafe import Markup

    problems = {i.name: list(i.problems) for i in report.iterations}
    gallery, spoken, heat, reasoned = (_each(store, report, problems, part) for part in PARTS)
    style = resources.files("viper.report").joinpath("templates", "style.css").read_text("utf-8")
    return _template().render(
        style=Markup(style),  # noqa: S704 (our own file)
        report=report,
        title=_title(report),
        conclusion=benchmarks.conclusion(report),
        tone=_tone(report),
        findings=_findings(report),
        accuracy=charts.accuracy(report),
        benchmarks=[(i.name, found) for i in report.iterations if (found := benchmarks.tables(i))],
        rewards=charts.rewards(report),
        funnels=charts.funnels(report),
        balance=charts.balance(report),
        calls=charts.model_calls(report),
        differences=charts.differences(report),
        tasks=report.tasks,
        iterations=[_iteration(i, report.tasks, problems[i.name]) for i in report.iterations],
        gallery=gallery,
        spoken=spoken,
        attention=heat,
        reasoning=reasoned,
        provenance=[_provenance(i) for i in report.iterations],
        settings=settings(report),
        registry_lines=registry_lines,
    )


def _title(report: LoopReport) -> str:
    model = report.iterations[0].frozen.iteration.spec.model if report.iterations else "ViPER"
    count = len(report.iterations) + len(report.not_started) + len(report.unreadable)
    return f"{model}: {plural(count, 'iteration')}"


def _tone(report: LoopReport) -> str:
    found = words.findings(report)
    return {"better": "good", "WORSE": "bad"}.get(words.verdict(found[0].comparison), "") if found else ""


def _findings(report: LoopReport) -> list[dict[str, Any]]:
    found = words.findings(report)
    limit = max((abs(v) for f in found for v in (f.comparison.low, f.comparison.high)), default=0.0) or 1.0
    tones = {"better": "good", "WORSE": "bad"}
    rows = []
    for f in found:
        c, verdict = f.comparison, words.verdict(f.comparison)
        tone = tones.get(verdict, "flat")
        rows.append(
            {
                "domain": f.domain,
                "n": f.after.n,
                "before": words.interval(f.before),
                "after": words.interval(f.after),
                "difference": words.difference(c),
                "p": words.p_value(c.p_two_sided),
                "verdict": verdict,
                "tone": tone,
                "forest": forest(
                    (c.low, c.difference, c.high), limit, tone, f"{f.domain}: {words.difference(c)} points"
                ),
                "checkpoint": f.checkpoint,
                "reference": "starter" if f.reference == "base" else "θ0",
            }
        )
    return rows


def _iteration(i: IterationReport, tasks: Sequence[str], problems: Sequence[str]) -> dict[str, Any]:
    data = {f.task: f"{words.count(f.accepted)} of {f.made}" for f in i.funnels}
    if i.images is not None:
        data["images"] = f"{i.images.accepted} of {i.images.accepted + sum(i.images.rejected.values())}"
    rewards = {t.task: f"{ends[0]:.3f} → {ends[1]:.3f}" for t in i.trainings if (ends := t.ends(REWARD))}
    change = i.comparison(f"{i.final}-{THETA0}", OVERALL)
    before, after = (i.scores.get(m, {}).get(OVERALL) for m in (THETA0, i.final))
    verdict = "" if change is None else words.verdict(change)
    return {
        "name": i.name,
        "state": i.state,
        "outcome": words.outcome(i),
        "reason": words.reason(i),
        "version": words.count(i.outcome.version if i.outcome else None),
        "data": [data.get(task, words.DASH) for task in ("images", *tasks)],
        "rewards": list(rewards.items()),
        "accuracy": f"{words.percent(before.accuracy)} → {words.percent(after.accuracy)}" if before and after else "–",
        "change": "" if change is None else f"{words.points(change.difference)}, {words.p_value(change.p_two_sided)}",
        "verdict": verdict,
        "tone": {"better": "good", "WORSE": "bad"}.get(verdict, "flat"),
        "time": words.duration(i.seconds),
        "pending": [(s.name, s.words) for s in i.pending] if i.state == "unfinished" else [],
        "problems": problems,
    }


Shown = dict[str, Any]


def _each(
    store: ObjectStore,
    report: LoopReport,
    problems: Mapping[str, list[str]],
    part: tuple[str, Callable[[ObjectStore, IterationReport, int], Iterable[Shown]]],
) -> list[Shown]:
    """A part of the page for each iteration shown in full; what cannot be read is a problem of its iteration."""
    what, make = part
    chosen = _with_gallery(report)
    found: list[Shown] = []
    for i in chosen:
        found += guarded(problems[i.name], what, lambda i=i: list(make(store, i, len(chosen))), [])  # type: ignore[misc]
    return found


def _gallery(store: ObjectStore, i: IterationReport, room: int) -> Iterator[Shown]:
    tasks = [(f.title, shown) for f in i.funnels if (shown := samples(store, i, f, room))]
    if tasks:
        yield {"name": i.name, "tasks": tasks}


def _spoken(store: ObjectStore, i: IterationReport, _room: int) -> Iterator[Shown]:
    for t in i.trainings:
        if shown := outputs(store, i, t):
            yield {"title": f"{i.name}, {t.task}", "prompts": shown}


def _attention(store: ObjectStore, i: IterationReport, _room: int) -> Iterator[Shown]:
    if (shown := attention.shown(store, i)) is not None:
        yield shown


def _reasoning(store: ObjectStore, i: IterationReport, _room: int) -> Iterator[Shown]:
    return reasoning.parts(store, i)


#: What a problem calls it, and what makes it.
PARTS = (("gallery", _gallery), ("outputs", _spoken), ("attention", _attention), ("reasoning", _reasoning))


def _with_gallery(report: LoopReport) -> tuple[IterationReport, ...]:
    """The first iteration and the last ones."""
    all_of_them = report.iterations
    return all_of_them if len(all_of_them) <= ITERATIONS else (all_of_them[0], *all_of_them[1 - ITERATIONS :])


def _provenance(i: IterationReport) -> dict[str, Any]:
    frozen = i.frozen
    models = {"generator θ0": frozen.generator, "base": frozen.base, "critic": frozen.critic, "judge": frozen.judge}
    stages = []
    for s in i.stages:
        m = s.manifest
        model = m.outputs.get("model") if m is not None else None
        stages.append(
            {
                "name": s.name,
                "state": s.words,
                "parts": len(m.parts) if m else "",
                "accepted": m.accepted if m else "",
                "rejected": sum(m.rejected.values()) if m else "",
                "seconds": words.duration(m.seconds) if m else "",
                "manifest": m.content_digest if m else "",
                "model": str(model.get("digest", "")) if isinstance(model, dict) else "",
            }
        )
    return {
        "name": i.name,
        "identity": frozen.identity,
        "models": [
            (role, m.uri, m.digest, "" if m.version is None else f"{m.model} version {m.version}")
            for role, m in models.items()
        ],
        "tracking": frozen.tracking.uri,
        "run": frozen.tracking.parent_run,
        "images": frozen.iteration.spec.images.uri,
        "questions": frozen.iteration.spec.evaluation.questions or "none",
        "versions": sorted(frozen.versions.items()),
        "stages": stages,
    }
