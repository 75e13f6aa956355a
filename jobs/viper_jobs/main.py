"""`viper-job STAGE --iteration URI [--shard i/n] [--work-dir DIR]`: runs one stage program."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import viper
from viper.costs.measured import remember
from viper.errors import SpecError, StageError, StoreError, SupersededError, ViperError
from viper.iteration.recording import record_stage
from viper.methods.stages import DECLARED, declared
from viper.plan import headline
from viper.stage import Manifest, StageContext, open_stage
from viper.stage.progress import LINE_SECONDS
from viper.stage.telling import Spoken, Teller, beating, spoken
from viper.stage.termination import leave_message, stoppable
from viper.store import split_iteration_path
from viper.words import duration, plural, took

#: Does a shard's work; returns the manifest, or None while other shards still work.
StageProgram = Callable[[StageContext], Manifest | None]


def stage_program(stage: str) -> StageProgram:
    """What this image declares to be the program of a stage; raises `StageError` where that cannot be run."""
    program = declared(stage).program
    module, _, name = program.partition(":")
    if not (module and name):
        raise StageError(f"its program is {program!r}", where=stage, fix="declare module:function")
    try:
        found: StageProgram = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise StageError(
            f"its program {program} cannot be imported ({type(error).__name__}: {error})",
            where=stage,
            fix="run it in an image that has the program and what this imports",
        ) from error
    if not callable(found):
        raise StageError(f"its program {program} is no function", where=stage, fix="declare module:function")
    return found


def recorder(ctx: StageContext) -> Callable[[Manifest], None]:
    """Records the finished stage in MLflow, and what it took in the store's table of throughputs."""

    def record(manifest: Manifest) -> None:
        record_stage(ctx, manifest)
        # A courtesy to later plans. A store that is down fails the stage at its manifest, not here.
        with suppress(StoreError):
            remember(ctx.store, ctx.frozen, manifest)

    return record


def main(
    argv: Sequence[str] | None = None,
    *,
    program: Callable[[str], StageProgram] = stage_program,
    record: Callable[[StageContext], Callable[[Manifest], None] | None] = recorder,
) -> int:
    """Runs a stage; returns the exit status: 0, or the `exit_code` of the `ViperError`, or 1."""
    arguments = _parser().parse_args(argv)
    return exit_status(lambda: _run(arguments, program, record), arguments.termination_log)


def exit_status(work: Callable[[], None], termination_log: Path | None) -> int:
    """Does the work; its error goes to stderr and, as JSON with reason and message, into the termination log.

    Raises `SystemExit` on SIGTERM, when what is open is closed.
    """
    try:
        with stoppable():
            work()
    except SystemExit as stop:
        print(f"stopped with status {stop.code}; what is complete is kept", file=sys.stderr)
        leave_message(termination_log, "Stopped", "the program was told to stop and did; what is complete is kept")
        raise
    except ViperError as error:
        print(f"error: {error}", file=sys.stderr)
        leave_message(termination_log, type(error).__name__, str(error))
        return error.exit_code
    except Exception as error:
        traceback.print_exc()
        leave_message(termination_log, type(error).__name__, f"{type(error).__name__}: {error}")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="viper-job", description="Runs one stage of a frozen iteration.")
    parser.add_argument("stage", choices=tuple(DECLARED), metavar="STAGE", help=", ".join(DECLARED))
    parser.add_argument("--iteration", required=True, metavar="URI", help="<store URI>/iterations/<name>")
    parser.add_argument("--shard", default="0/1", metavar="I/N", help="this process's share of the parts")
    parser.add_argument("--work-dir", type=Path, metavar="DIR", help="scratch; a temporary folder when left out")
    parser.add_argument("--termination-log", type=Path, metavar="FILE", help="receives the last error as JSON")
    return parser


def _run(
    arguments: argparse.Namespace,
    program: Callable[[str], StageProgram],
    record: Callable[[StageContext], Callable[[Manifest], None] | None],
) -> None:
    store, name = split_iteration_uri(arguments.iteration)
    shard, shards = parse_shard(arguments.shard)
    tell, begun = Teller(), time.monotonic()
    with ExitStack() as stack:
        heard = Spoken(tell)
        stack.enter_context(spoken(heard))
        work_dir = arguments.work_dir
        if work_dir is None:
            work_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="viper-job-")))
        ctx = open_stage(store, name, arguments.stage, work_dir, shard=shard, shards=shards, tell=tell)
        heard.waits = ctx.progress
        ctx.frozen.node(ctx.stage)
        _limit_threads(ctx.frozen.iteration.spec.profile.of(ctx.stage).threads)
        ctx.recorder = record(ctx)
        tell(_begins(ctx))
        stack.enter_context(beating(ctx.progress.pulse, LINE_SECONDS / 3))
        try:
            _attempt(ctx, program(ctx.stage), begun)
        except BaseException as error:
            ctx.progress.end()
            ends = "stops" if isinstance(error, SystemExit) else "fails"
            tell(f"{ctx.stage} of {name} {ends} after {duration(time.monotonic() - begun, 1)}")
            raise


def _begins(ctx: StageContext) -> str:
    """The first line of an attempt: what begins, and what there is already."""
    frozen = ctx.frozen
    shard = f", shard {ctx.shard} of {ctx.shards}" if ctx.shards > 1 else ""
    text = f"{ctx.stage} of {frozen.name} begins{shard} (viper {viper.__version__}, {_today()}, {ctx.store.uri})"
    with suppress(StoreError):  # what needs the store says what is wrong with it
        if there := ctx.parts_there():
            text = f"{text}; {plural(there, 'part')} of earlier attempts or other shards {_are(there)} there"
    return text


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


def _ends(ctx: StageContext, manifest: Manifest | None, seconds: float) -> str:
    """The last line of an attempt: what was made, and how long that took."""
    stage = f"{ctx.stage} of {ctx.frozen.name}"
    if manifest is None:
        return f"{stage}: this shard is through after {duration(seconds, 1)}; other shards are at work on theirs"
    made, steps = headline(manifest), manifest.outputs.get("steps")
    work = plural(steps, "step") if isinstance(steps, int) else plural(len(manifest.parts), "part")
    # Of a stage whose shards or attempts worked on it side by side, the work is more than the time.
    return f"{stage} is done" + (f": {made}" if made else "") + f" ({took(seconds, manifest.seconds, work)})"


def _attempt(ctx: StageContext, program: StageProgram, begun: float) -> None:
    """Runs the stage. Once another attempt has finished it, whatever this one runs into is no failure of the stage."""
    stage = f"{ctx.stage} of {ctx.frozen.name}"
    try:
        manifest = ctx.complete()
        if manifest is None:
            manifest = program(ctx)
    except Exception as error:
        try:
            ctx.give_way()
        except SupersededError:
            met = "" if isinstance(error, SupersededError) else f" ({type(error).__name__}: {error})"
            print(f"{stage}: another attempt has finished it; this one ends here{met}", file=sys.stderr)
            return
        except ViperError:  # whether it is finished cannot be told: then what went wrong is to be told
            pass
        raise
    if ctx.superseded:
        print(f"{stage}: another attempt was first; its result stands, nothing of it was changed", file=sys.stderr)
    ctx.progress.end()
    ctx.tell(_ends(ctx, manifest, time.monotonic() - begun))


def split_iteration_uri(uri: str) -> tuple[str, str]:
    """Store URI and iteration name of `<store URI>/iterations/<name>`; raises `SpecError`."""
    try:
        parts = urlsplit(uri)
        found = split_iteration_path(parts.path)
    except ValueError:  # brackets that are no address
        found = None
    if found is None:
        raise SpecError("is not the URI of an iteration", where=uri, fix="write <store URI>/iterations/<name>")
    return urlunsplit(parts._replace(path=found[0])), found[1]


def parse_shard(text: str) -> tuple[int, int]:
    """Index and number of shards from `i/n`; raises `SpecError`."""
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if found is None or not int(found[1]) < int(found[2]):
        raise SpecError(f"{text!r} is not a shard", where="--shard", fix="write i/n with 0 ≤ i < n")
    return int(found[1]), int(found[2])


def _limit_threads(threads: int) -> None:
    """0 leaves the library defaults."""
    if threads == 0:
        return
    os.environ["OMP_NUM_THREADS"] = str(threads)
    # In a process forked from a warm server torch is there already and has read its environment.
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    sys.exit(main())
