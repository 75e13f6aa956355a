"""GRPO by verl: data handed over, verl watched, restarted from its checkpoints and believed only where it is checked.

The stage program and verl share one interpreter (that of the training image). verl runs as a child; its exit status
says nothing here. A run is complete when every step is in the curves, the last checkpoint is whole, and the converted
weights are those of verl's shards.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO

from viper.digests import digest_of
from viper.errors import InputError, SpecError, StageError, StoreError
from viper.reward.equations import RewardParameters
from viper.reward.service.process import RewardServer
from viper.reward.service.process import running as reward_service
from viper.spec.engines import VerlSettings
from viper.training.data import RlDataset
from viper.training.interrupt import StopRequest, stop_requests
from viper.training.local.checkpoints import weights_digest
from viper.training.outcome import record_result, recorded_result
from viper.training.settings import GrpoResult, GrpoSettings, StepMetrics, data_order
from viper.training.verl import checkpoints, preflight, process, untrusted
from viper.training.verl.config import VerlHardware, VerlPaths, arguments, verl_config
from viper.training.verl.export import compare_with_shards, export_model
from viper.training.verl.metrics import Tail
from viper.training.verl.parquet import write_rows
from viper.training.verl.run_record import RunRecord
from viper.training.verl.watchdog import FRUITLESS, Signs, Verdict, disk_full, explain, last_error, verdict

POLL_SECONDS = 0.5
#: How often the reward service may be started again within one attempt.
REWARD_RESTARTS = 3
_TAIL_LINES = 400
#: The environment's list of modules that verl imports first of all, and ours among them.
PLUGINS, EQUAL_LENGTHS = "VERL_USE_EXTERNAL_MODULES", "viper.training.verl.equal_lengths"

OnStep = Callable[[StepMetrics], None]


@dataclass(frozen=True)
class VerlTrainer:
    """`Trainer` of the training stages.

    `similarity` names the reward's sentence embedder and `device` where it runs. `machine` is what a node has, as far
    as it is known. `on_stall` gets the folder with the stacks of a run that stood still, before it is stopped.
    """

    engine: VerlSettings
    hardware: VerlHardware
    similarity: str
    device: str
    machine: preflight.Machine = preflight.UNKNOWN
    on_stall: Callable[[Path], None] = lambda _: None

    def __call__(
        self,
        model_dir: Path,
        samples: RlDataset,
        held_out: RlDataset,
        settings: GrpoSettings,
        work_dir: Path,
        *,
        on_step: OnStep,
        evaluate: Callable[[Path], float] | None,
    ) -> GrpoResult:
        """See `viper.training.local.grpo.train_grpo`; one run per `work_dir`, run again it goes on from its checkpoint.

        Raises:
            SpecError: a way of selecting the step that verl cannot serve, or no verl.
            InputError: no samples, or no held-out ones where the step is selected by them; a model that cannot fit, or
                holds code; a checkpoint that holds more than data.
            StageError: verl ended twice without a new checkpoint, the policy diverged, nothing can be learnt, or the
                converted weights are not the trained ones.
            StoreError: the disk is full.
        """
        if evaluate is not None or settings.select == "heldOutPerception":
            raise SpecError(
                "verl cannot select steps by held-out perception: its GPUs are taken while it trains",
                where="spec.recipe.*.training.select",
                fix="select by heldOutReward or last, or use the trainer trl",
            )
        if find_spec("verl") is None:
            raise SpecError(
                "verl is not installed beside this interpreter",
                where="spec.engines.trainer",
                fix="run the stage in the training image or in its environment (docs/verl.md), or use the trainer trl",
            )
        if not len(samples) or (settings.select == "heldOutReward" and not len(held_out)):
            raise InputError("there are no samples to train on, or none to select the step by", where="samples")
        run = _Run(self, model_dir.absolute(), samples, held_out, settings, work_dir.absolute())
        finished = recorded_result(run.work_dir, run.fingerprint)
        if finished is not None:
            return finished
        run.check_machine()
        untrusted.check_model(run.model_dir)
        with stop_requests() as stop:
            return run.train(on_step, stop)


class _Run:
    def __init__(  # noqa: PLR0917
        self,
        trainer: VerlTrainer,
        model_dir: Path,
        samples: RlDataset,
        held_out: RlDataset,
        settings: GrpoSettings,
        work_dir: Path,
    ) -> None:
        self.trainer, self.model_dir, self.settings, self.work_dir = trainer, model_dir, settings, work_dir
        self.samples, self.held_out = samples.encoded, held_out.encoded[: settings.held_out_limit]
        self.steps = settings.total_steps(len(self.samples))
        self.fingerprint = digest_of(
            {
                "settings": asdict(settings),
                "similarity": trainer.similarity,
                "samples": [s.sample_id for s in self.samples],
                "held_out": [s.sample_id for s in self.held_out],
                "model": weights_digest(model_dir),
            }
        )
        self.book = RunRecord(work_dir, self.fingerprint, settings, self.steps, len(self.held_out))

    def check_machine(self) -> None:
        """Raises `InputError` for a model that cannot fit; what earlier attempts wrote counts as free disk."""
        trainer, machine = self.trainer, self.trainer.machine
        needed = preflight.needs(
            preflight.weights_of(self.model_dir),
            trainer.hardware,
            trainer.engine,
            candidates=self.settings.select != "last",
        )
        if machine.disk is not None:
            written = sum(p.stat().st_size for p in self.work_dir.rglob("*") if p.is_file())
            machine = replace(machine, disk=machine.disk + written)
        preflight.check(needed, machine, trainer.engine.rollout_memory_share)

    # -- attempts ------------------------------------------------------------------------------------------------------

    def train(self, on_step: OnStep, stop: StopRequest) -> GrpoResult:
        fruitless = 0
        try:
            while (first := self.book.resume()) < self.steps:
                if first:
                    untrusted.check_checkpoint(checkpoints.step_dir(self.book.root, first))
                self._write_data()
                ended = self._attempt(first, on_step, stop)
                saved = self.book.saved
                if saved == self.steps:
                    continue
                problem = self._problem(*ended, first)
                fruitless = 0 if saved > first else fruitless + 1
                if fruitless >= FRUITLESS:
                    raise problem
                print(f"{problem}; it goes on from step {saved}", file=sys.stderr)
            return self._finish()
        finally:
            self.book.close()

    def _attempt(self, first: int, on_step: OnStep, stop: StopRequest) -> tuple[Verdict, int | None, Path]:
        """Runs verl once, from checkpoint `first`; returns how it ended, with what status, and what it printed."""
        number = 1 + len(list((self.work_dir / "attempts").glob("*.log")))
        log, measured = (self.work_dir / "attempts" / f"{number}.{kind}" for kind in ("log", "jsonl"))
        log.parent.mkdir(parents=True, exist_ok=True)
        s, trainer = self.settings, self.trainer
        reward = RewardParameters(s.tau, s.format_weight, s.correct_weight)
        # Workers of other nodes ask, too.
        host, known_as = ("0.0.0.0", _own_address()) if trainer.hardware.nodes > 1 else ("127.0.0.1", None)  # noqa: S104
        folder = self.work_dir / "reward"
        with (
            reward_service(
                trainer.similarity, trainer.device, reward, folder, host=host, advertised=known_as
            ) as server,
            process.running(
                self._command(first, server.url, measured), self._environment(measured), log, self.work_dir
            ) as child,
        ):
            found = self._follow(child, server, Tail(measured), log, on_step, stop)
            if found == "stalled":
                stacks = self.work_dir / "stalls" / str(number)
                process.save_stacks(process.mark_of(self.work_dir), stacks)
                trainer.on_stall(stacks)
        return found, child.returncode, log

    def _follow(  # noqa: PLR0917
        self,
        child: subprocess.Popen[bytes],
        server: RewardServer,
        tail: Tail,
        log: Path,
        on_step: OnStep,
        stop: StopRequest,
    ) -> Verdict:
        """Takes in verl's steps until it ends or has to be ended."""
        progress = time.monotonic()
        with log.open("rb") as printed:
            while True:
                status = child.poll()  # before reading: what it wrote at its end is read then
                for row in tail.rows():
                    if (step := self.book.take(row)) is not None:
                        on_step(step)
                    progress = time.monotonic()  # keeping a checkpoint elsewhere takes its time
                _forward(printed.read(), sys.stderr)
                if stop.signal:
                    stop.leave()
                if not server.alive() and status is None and server.restarts < REWARD_RESTARTS:
                    server.restart()  # at the same address: verl's workers ask again until it is back
                signs = Signs(time.monotonic() - progress, status, server.alive())
                found = verdict(signs, self.trainer.engine.stall_seconds)
                if found != "wait":
                    return found
                time.sleep(POLL_SECONDS)

    def _problem(self, found: Verdict, status: int | None, log: Path, first: int) -> StageError:
        """Why an attempt ended too early; raises `StoreError` on a full disk."""
        lines = self._last_lines(log)
        went = f"at step {self.book.reached} of {self.steps} (it had gone on from step {first})"
        what = explain(found, status, self.trainer.engine.stall_seconds, went)
        error = last_error(lines)
        return StageError(f"{what}{': ' if error else ''}{error}", where=str(log), fix="read the end of this log")

    def _last_lines(self, log: Path) -> list[str]:
        """Of a program that ended too early; raises `StoreError` where it found no room to write."""
        lines = log.read_text("utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
        if disk_full(lines, shutil.disk_usage(self.work_dir).free, checkpoints.size_of_newest(self.book.root)):
            raise StoreError(
                "the disk is full",
                where=str(self.work_dir),
                fix="free some space; training goes on from its last checkpoint",
            )
        return lines

    # -- what verl gets ------------------------------------------------------------------------------------------------

    def _write_data(self) -> None:
        """The rows of every step, in the order in which the one machine's trainer would take them."""
        data = self.work_dir / "data"
        if not (data / "train.parquet").is_file():
            s = self.settings
            write_rows(
                data / "train.parquet",
                self.samples,
                data_order(len(self.samples), 0, self.steps * s.batch_prompts, s.seed),
            )
        if not (data / "held_out.parquet").is_file():
            # verl asks for a file of samples to validate with, even where it never validates.
            held_out = self.held_out or self.samples[:1]
            write_rows(data / "held_out.parquet", held_out, range(len(held_out)))

    def _command(self, first: int, reward_url: str, measured: Path) -> list[str]:
        data = self.work_dir / "data"
        paths = VerlPaths(
            model=self.model_dir,
            train=data / "train.parquet",
            held_out=data / "held_out.parquet",
            checkpoints=self.book.root,
            sampled=self.book.sampled,
            reward_url=reward_url,
        )
        config = verl_config(
            self.settings,
            paths,
            self.trainer.hardware,
            self.trainer.engine,
            steps=self.steps,
            validate=bool(self.held_out),
            validate_first=bool(self.held_out) and first == 0 and self.settings.select != "last",
        )
        if self.trainer.hardware.ray_address is not None:
            # Workers of a cluster that was there before do not inherit this process's environment.
            given = {**self._given(measured), process.MARK: process.mark_of(self.work_dir)}
            config |= {f"+ray_kwargs.ray_init.runtime_env.env_vars.{name}": value for name, value in given.items()}
        return [sys.executable, "-m", "verl.trainer.main_ppo", *arguments(config)]

    def _environment(self, measured: Path) -> dict[str, str]:
        set_here = {"HYDRA_FULL_ERROR": "1", "PYTHONUNBUFFERED": "1", "RAY_USAGE_STATS_ENABLED": "0"}
        return {"HF_HUB_OFFLINE": "1", **os.environ, **set_here, **self._given(measured)}

    def _given(self, measured: Path) -> dict[str, str]:
        """What verl and the libraries below it take from the environment."""
        plugins = [m for m in os.environ.get(PLUGINS, "").split(",") if m and m != EQUAL_LENGTHS]
        return {
            "VERL_FILE_LOGGER_PATH": str(measured),
            "HF_DATASETS_CACHE": str(self.work_dir / "datasets"),
            PLUGINS: ",".join([EQUAL_LENGTHS, *plugins]),
        }

    # -- the end -------------------------------------------------------------------------------------------------------

    def _finish(self) -> GrpoResult:
        best, model = self.book.best(), self.work_dir / "model"
        converted = self.model_dir if best == 0 else self.book.weights(best) / "huggingface"
        export_model(self.model_dir, converted, model)
        if best:
            untrusted.check_checkpoint(self.book.weights(best))
            merged = self._merge(self.book.weights(best))
            compare_with_shards(model, merged)
            shutil.rmtree(merged)
        return record_result(self.work_dir, self.fingerprint, self.steps, best, self.book.history)

    def _merge(self, weights: Path) -> Path:
        """What verl's own merger makes of a checkpoint's shards."""
        merged, log = self.work_dir / "merged", self.work_dir / "attempts" / "merge.txt"
        shutil.rmtree(merged, ignore_errors=True)
        names = ["--backend", "fsdp", "--local_dir", str(weights), "--target_dir", str(merged)]
        argv = [sys.executable, "-m", "verl.model_merger", "merge", *names]
        with process.running(argv, self._environment(log), log, self.work_dir) as child:
            status = child.wait()
        if status or not any(merged.glob("*.safetensors")):
            error = last_error(self._last_lines(log))
            raise StageError(f"verl cannot read its own checkpoint: {error or f'status {status}'}", where=str(log))
        return merged


def _own_address() -> str:
    """Of this node, as the others of a Ray cluster reach it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing: it asks for the route to anywhere
        return str(probe.getsockname()[0])


def _forward(printed: bytes, to: TextIO) -> None:
    """What verl prints belongs into the stage's log."""
    if printed:
        to.write(printed.decode("utf-8", "replace"))
        to.flush()
