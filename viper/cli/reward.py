"""`viper reward explain`: why an output got its score, sentence by sentence. `calibrate` is in a module of its own."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from viper.cli import calibrate
from viper.cli.options import SHARE, whole
from viper.engines import factory
from viper.errors import InputError
from viper.reward.equations import Reward, RewardParameters, score_batch
from viper.terminal import columns, folded
from viper.text import clean, load_json
from viper.words import one_line

if TYPE_CHECKING:
    from rich.text import Text

_EXAMPLE = """\
examples:
  viper reward explain --output '<think>I look.</think>The ball is red.' --ground-truth 'The ball is blue.'
  viper reward explain --output answer.txt --ground-truth flaws.json --json
  viper reward explain --rollout runs/…/rollouts.jsonl --row 12 --ground-truth flaws.txt
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `reward` with its actions."""
    parser = subparsers.add_parser("reward", help="explain the reward of an output, calibrate its similarity model")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    explain = actions.add_parser(
        "explain",
        help="show every sentence with its best ground truth, similarity and hit",
        description="Scores one output by equations 5 to 7 and shows what the score is made of.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = explain.add_mutually_exclusive_group(required=True)
    source.add_argument("--output", metavar="TEXT|FILE", help="the model's whole output, think block included")
    source.add_argument("--rollout", metavar="FILE", type=Path, help="a rollouts.jsonl; see --row")
    explain.add_argument(
        "--row",
        type=whole(1, 10**9, "line"),
        default=1,
        metavar="N",
        help="line of the rollout file, from 1 (default 1)",
    )
    explain.add_argument(
        "--ground-truth",
        action="append",
        metavar="TEXT|FILE",
        help="a ground-truth sentence (repeatable), or a file: a JSON list, {'refinement': [...]}, or lines",
    )
    explain.add_argument("--similarity", default="smallworld", metavar="ENGINE", help="similarity engine (%(default)s)")
    defaults = RewardParameters()
    for name, text in (("tau", "τ, the cosine from which a sentence hits"), ("format_weight", "weight of R_format")):
        flag = f"--{name.replace('_', '-')}"
        explain.add_argument(flag, type=SHARE, default=getattr(defaults, name), help=f"{text} (%(default)s)")
    explain.add_argument(
        "--correct-weight", type=SHARE, default=defaults.correct_weight, help="weight of R_correct (%(default)s)"
    )
    explain.add_argument("--json", action="store_true", help="print JSON instead of a table")
    calibrate.add_action(actions)


def run(args: argparse.Namespace) -> int:
    """Prints what is asked for; raises `InputError` for a missing file or row, `SpecError` for an unknown engine."""
    if args.action == "calibrate":
        return calibrate.run(args)
    finished, truths = True, [t for item in args.ground_truth or [] for t in _sentences(item)]
    if args.rollout is None:
        output = _text(args.output, "--output")
    else:
        output, finished, own = _rollout_row(args.rollout, args.row)
        truths = truths or own
    if not truths:
        raise InputError("there is no ground truth to compare with", where="--ground-truth", fix="give one or more")
    engine = factory.similarity(args.similarity)
    parameters = RewardParameters(args.tau, args.format_weight, args.correct_weight)
    (reward,) = score_batch([output], [truths], engine, parameters, [finished])
    if args.json:
        about = {"similarity": engine.engine_id, "parameters": asdict(parameters), "ground_truth": truths}
        print(json.dumps({**asdict(reward), **about}, ensure_ascii=False, indent=2))
    else:
        print(explanation(reward, parameters, engine.engine_id))
    return 0


def explanation(reward: Reward, parameters: RewardParameters, similarity: str) -> str:
    """The score's derivation as text: a row per sentence, then the equations with the numbers put in."""
    p, hits = parameters, sum(s.hit for s in reward.sentences)
    length, hit_length = (sum(s.length for s in reward.sentences if s.hit or every) for every in (True, False))
    lines = [f"similarity {similarity}, τ = {p.tau:g}", ""]
    if reward.sentences:
        rows: list[tuple[str | Text, ...]] = [("", "sim", "L", "sentence", "best ground truth")]
        rows += [
            ("hit" if s.hit else "miss", f"{s.similarity:.3f}", str(s.length), *texts)
            for s in reward.sentences
            for texts in [(folded(one_line(t), 44) for t in (s.sentence, s.best_ground_truth or "-"))]
        ]
        lines += map(str, columns(rows, right=(1, 2), least={0: 4, 1: 5, 2: 3}))
    else:
        lines.append("the output has no sentence: N = 0, so R_correct = 0")
    for missed in reward.missed:
        lines += textwrap.wrap(f"not reached: {missed}", 106, subsequent_indent=" " * 13)
    shares = f"({hits}/{reward.items}) · ({hit_length}/{length})" if reward.items else "0"
    problem = f"  ({reward.format_problem})" if reward.format_problem else ""
    lines += [
        "",
        f"R_format  = {reward.format:g}{problem}",
        f"R_correct = {shares} = {reward.correctness:.4f}",
        f"R = {p.format_weight:g} · {reward.format:g} + {p.correct_weight:g} · {reward.correctness:.4f}"
        f" = {reward.reward:.4f}",
        "",
        f"not rewarded: recall {reward.recall:.3f}, items {reward.items}, duplicates {reward.duplicate_share:.3f}",
    ]
    return "\n".join(lines)


#: Names that end so, or begin like a path, are files: one that is not there is no sentence.
_SUFFIXES = (".txt", ".json", ".jsonl", ".md", ".yaml", ".yml", ".csv")
_STARTS = ("/", "./", "../", "~/")
#: Bytes of a file or a row: an output has at most some ten thousand tokens.
_LARGEST = 16 * 1024 * 1024


def _text(value: str, option: str) -> str:
    """The file's content when there is such a file, else the value itself; raises `InputError`."""
    path = Path(value)
    try:
        there = path.is_file()
        if path.is_dir() and ("/" in value or value in (".", "..")):
            raise InputError("is a folder", where=f"{option} {value}", fix="name a file in it")
    except OSError:  # a long text is no file name
        return clean(value)
    if there:
        with path.open("rb") as file:
            return _decoded(file.read(_LARGEST + 1), value)
    if len(value.split()) == 1 and (value.lower().endswith(_SUFFIXES) or value.startswith(_STARTS)):
        raise InputError("there is no such file", where=f"{option} {value}", fix="correct the name, or give a sentence")
    return clean(value)


def _decoded(data: bytes, where: str) -> str:
    if len(data) > _LARGEST:
        raise InputError(f"is larger than {_LARGEST // 2**20} MiB", where=where)
    try:
        return clean(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError("is not UTF-8 text", where=where, fix="save the file as UTF-8") from error


def _sentences(value: str) -> list[str]:
    """Ground-truth sentences of an argument: a JSON list or refinement object, else one a line."""
    where = "--ground-truth"
    text = _text(value, where).strip()
    if text.startswith(("[", "{")):
        found = _json(text, where)
        return _listed(found.get("refinement") if isinstance(found, Mapping) else found, where)
    return [line.strip() for line in text.splitlines() if line.strip()]


def _json(text: str, where: str) -> Any:
    try:
        return load_json(text)
    except ValueError as error:
        raise InputError(f"this is not JSON: {error}", where=where) from error


def _listed(found: Any, where: str) -> list[str]:
    """A list of sentences; a single text would be scored letter by letter."""
    if not isinstance(found, list) or not all(isinstance(i, str) and i.strip() for i in found):
        raise InputError(
            "expected a list of sentences",
            where=where,
            fix='write ["The ball is blue."], or {"refinement": ["The ball is blue."]}',
        )
    return found


def _rollout_row(path: Path, number: int) -> tuple[str, bool, list[str]]:
    """Output, whether it was finished, and ground truths of a line of a rollout file."""
    try:
        with path.open("rb") as file:
            line = next((data for i, data in enumerate(_lines(file), 1) if i == number), None)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"the rollout file cannot be read: {reason}", where=str(path)) from error
    if line is None:
        raise InputError(f"there is no line {number}", where=str(path), fix="choose another --row")
    where = f"{path}:{number}"
    row = _json(_decoded(line, where), where)
    if not isinstance(row, dict) or "output" not in row:
        raise InputError("the line is no rollout (it has no 'output')", where=where)
    output, finished, truths = row["output"], row.get("finished", True), row.get("ground_truth", [])
    if not isinstance(output, str):
        raise InputError("its output is no text", where=f"{where} output")
    if not isinstance(finished, bool):
        raise InputError("is neither true nor false", where=f"{where} finished")
    return output, finished, _listed(truths, f"{where} ground_truth")


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """Lines, none read further than a row can be."""
    while line := file.readline(_LARGEST + 1):
        yield line
        if len(line) > _LARGEST:
            return
