"""GRPO on one machine: group-normalised advantage, decoupled clip, no KL, mean of per-output token means.

The loop is this module's, the objective and the optimiser are TRL's (`trl_loss.py`). Everything random is a function
of the seed and the step (data order, sampling), so a checkpoint is weights, optimiser state and two file lengths, and
a run that was killed at any point continues to bit-identical weights and logs.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from viper.digests import digest_of
from viper.engines.base import RlSample, SimilarityModel
from viper.errors import InputError, StageError
from viper.reward.equations import RewardParameters, score_batch
from viper.training.interrupt import StopRequest, stop_requests
from viper.training.local.checkpoints import Checkpoints, Log, publish, weights_digest, writing
from viper.training.local.rollouts import Rollout, chunk_of, chunk_rows, rollout_metrics, rollout_rows
from viper.training.outcome import best_step, record_result, recorded_result, stop_when_collapsed
from viper.training.settings import GrpoResult, GrpoSettings, StepMetrics, data_order, group_advantages

__all__ = ["GrpoResult", "GrpoSettings", "StepMetrics", "train_grpo"]

OnStep = Callable[[StepMetrics], None]
Evaluate = Callable[[Path], float]


def train_grpo(  # noqa: PLR0917 (the order is the stages' contract)
    model_dir: Path,
    samples: Sequence[RlSample],
    held_out: Sequence[RlSample],
    similarity: SimilarityModel,
    settings: GrpoSettings,
    work_dir: Path,
    *,
    on_step: OnStep = lambda _: None,
    evaluate: Evaluate | None = None,
) -> GrpoResult:
    """Trains the model of `model_dir` on `samples`; run again on the same `work_dir`, it continues where it was.

    Args:
        model_dir: the starting model, Hugging Face layout, safetensors.
        samples: the RL data; order and ids are part of the run's identity.
        held_out: samples never trained on; their greedy reward is measured at checkpoints (may be empty).
        similarity: the reward's sentence embedder.
        settings: see `GrpoSettings`.
        work_dir: checkpoints, logs and the result; one run each.
        on_step: called after every step that was computed. Steps between the last checkpoint and a kill are computed
            again and reported again, with the same values.
        evaluate: held-out perception of a model directory (higher is better), called at checkpoints; needed when
            `settings.select` is `heldOutPerception`.

    Returns:
        The selected step's model directory and the whole history.

    Raises:
        InputError: no samples, settings that cannot work, a model that cannot be loaded, a prompt over the limit.
        StoreError: a checkpoint or log cannot be written (disk full).
        StageError: loss or gradient not finite; no group with signal for `collapse_steps` steps; foreign `work_dir`.
        KeyboardInterrupt, SystemExit: after SIGINT or SIGTERM, when the checkpoint is written.
    """
    _check(samples, held_out, settings, evaluate)
    run = GrpoRun(model_dir, samples, held_out, similarity, settings, work_dir, evaluate)
    finished = recorded_result(work_dir, run.fingerprint)
    if finished is not None:
        return finished
    with stop_requests() as stop:
        return run.train(on_step, stop)


def _check(
    samples: Sequence[RlSample], held_out: Sequence[RlSample], settings: GrpoSettings, evaluate: Evaluate | None
) -> None:
    if not samples:
        raise InputError("there are no samples to train on", where="samples")
    if settings.batch_prompts % settings.mini_batch_prompts:
        raise InputError("batch_prompts must be a multiple of mini_batch_prompts", where="settings")
    if settings.group_size < 2:
        raise InputError("a group needs two outputs or more", where="settings.group_size")
    if settings.select == "heldOutReward" and not held_out:
        raise InputError("selection by held-out reward needs held-out samples", where="settings.select")
    if settings.select == "heldOutPerception" and evaluate is None:
        raise InputError("selection by held-out perception needs an evaluation", where="settings.select")


class GrpoRun:
    """One run, and its steps: `load`, then for every step `roll_out` and `update`."""

    def __init__(  # noqa: PLR0917
        self,
        model_dir: Path,
        samples: Sequence[RlSample],
        held_out: Sequence[RlSample],
        similarity: SimilarityModel,
        settings: GrpoSettings,
        work_dir: Path,
        evaluate: Evaluate | None,
        device: str = "cpu",
    ) -> None:
        self.model_dir, self.work_dir, self.device = model_dir, work_dir, device
        self.samples, self.held_out = samples, held_out[: settings.held_out_limit]
        self.similarity, self.settings, self.evaluate = similarity, settings, evaluate
        self.steps = settings.total_steps(len(samples))
        self.parameters = RewardParameters(settings.tau, settings.format_weight, settings.correct_weight)
        work_dir.mkdir(parents=True, exist_ok=True)
        self.fingerprint = digest_of(
            {
                "settings": asdict(settings),
                "similarity": similarity.engine_id,
                "samples": [s.sample_id for s in samples],
                "held_out": [s.sample_id for s in self.held_out],
                "model": weights_digest(model_dir),
            }
        )

    # -- the loop -----------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Loads the policy, and makes its loss and optimiser."""
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        import torch

        from viper.training.local.policy import Policy
        from viper.training.local.trl_loss import SharedPromptGrpo

        if self.settings.threads is not None:
            torch.set_num_threads(self.settings.threads)
        self.policy = Policy(self.model_dir, device=self.device)
        self.trainer = SharedPromptGrpo(self.policy, self.settings, self.work_dir)
        self.optimizer = self.trainer.create_optimizer()

    def train(self, on_step: OnStep, stop: StopRequest) -> GrpoResult:
        self.load()
        self.checkpoints = Checkpoints(self.work_dir, self.fingerprint)
        state = self.checkpoints.load(self.policy.model, self.optimizer) or {"step": 0, "metrics": 0, "rollouts": 0}
        self.scores: dict[int, float] = {int(k): v for k, v in state.get("scores", {}).items()}
        metrics = Log(self.work_dir / "metrics.jsonl", state["metrics"])
        rollouts = Log(self.work_dir / "rollouts.jsonl", state["rollouts"])
        history = metrics.rows()
        began, first = time.monotonic(), int(state["step"])
        if first == 0 and self.settings.select != "last":
            self._score(0)
        for step in range(first + 1, self.steps + 1):
            start = time.monotonic()
            rollout = self.roll_out(step)
            values = {**rollout_metrics(rollout), **self.update(rollout, step)}
            saving = step % self.settings.save_every == 0 or step == self.steps
            if saving:
                values |= self._score(step)
            rollouts.write(rollout_rows(rollout, step))
            history.append({"step": step, **values})
            metrics.write(history[-1:])
            now = time.monotonic()
            rate = (step - first) / (now - began)
            on_step(
                StepMetrics(
                    step,
                    self.steps,
                    values,
                    now - start,
                    rate * self.settings.batch_prompts,
                    (self.steps - step) / rate,
                )
            )
            if saving or stop.signal:
                logs = {"metrics": metrics.size, "rollouts": rollouts.size}
                self.checkpoints.save(step, self.policy.model, self.optimizer, {**logs, "scores": self.scores})
                self._drop_candidates()
            if stop.signal and step < self.steps:
                stop.leave()
            stop_when_collapsed(history, self.settings.collapse_steps, self.work_dir)
        metrics.close()
        rollouts.close()
        return self._finish(history)

    def roll_out(self, step: int) -> Rollout:
        """Samples and scores the outputs of step `step` (counted from 1)."""
        import torch

        s = self.settings
        order = data_order(len(self.samples), (step - 1) * s.batch_prompts, s.batch_prompts, s.seed)
        batch = [self.samples[i] for i in order]
        self.policy.model.eval()
        prompts = self.policy.encode(batch, s.max_prompt_tokens)
        generator = torch.Generator().manual_seed(int(np.random.SeedSequence([s.seed, step]).generate_state(1)[0]))
        outputs = self.policy.sample(prompts, s.group_size, s.max_response_tokens, s.temperature, generator)
        texts = self.policy.decode(outputs)
        truths = [b.ground_truth for b in batch for _ in range(s.group_size)]
        rewards = score_batch(texts, truths, self.similarity, self.parameters, outputs.finished.tolist())
        table = np.array([r.reward for r in rewards]).reshape(-1, s.group_size)
        return Rollout(batch, s.group_size, prompts, outputs, texts, rewards, group_advantages(table).reshape(-1))

    def update(self, rollout: Rollout, step: int) -> dict[str, float]:
        """The optimiser updates of one step, one per mini-batch; sums of shares are over all output tokens."""
        import torch

        from viper.training.local.policy import backward

        s, rate = self.settings, self.settings.learning_rate_at(step - 1)
        rows, parameters = s.mini_batch_prompts * s.group_size, list(self.policy.model.parameters())
        lengths = rollout.outputs.mask.sum(1).cpu().numpy()
        updates: dict[str, list[float]] = {"loss": [], "grad_norm": []}
        clipped = {"clip/low": 0.0, "clip/high": 0.0}
        self.policy.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        for begin in range(0, len(lengths), rows):
            self.optimizer.zero_grad(set_to_none=False)
            total = 0.0
            for part in chunk_rows(
                rollout.advantages, lengths, range(begin, begin + rows), group=s.group_size, limit=s.micro_batch
            ):
                loss, shares = self.trainer.loss_of(chunk_of(rollout, part))
                loss = loss * (len(part) / rows)
                backward(loss)
                total += float(loss.detach())
                for name, share in shares.items():
                    clipped[name] += share * float(lengths[part].sum())
            norm = float(torch.nn.utils.clip_grad_norm_(parameters, s.max_grad_norm))
            self.optimizer.step()
            if not (np.isfinite([total, norm]).all() and all(bool(p.isfinite().all()) for p in parameters)):
                raise StageError(
                    f"step {step}: the policy diverged (loss {total}, gradient norm {norm}, or weights not finite)",
                    where=str(self.work_dir),
                    fix="lower the learning rate; the checkpoint before this step is kept",
                )
            updates["loss"].append(total)
            updates["grad_norm"].append(norm)
        shares = {name: value / float(lengths.sum()) for name, value in clipped.items()}
        return {**{k: float(np.mean(v)) for k, v in updates.items()}, **shares, "learning_rate": rate}

    # -- held-out scores and selection ---------------------------------------------------------------------------------

    def _score(self, step: int) -> dict[str, float]:
        """Measures the current weights on held-out data; keeps them as a candidate when selection may want them."""
        values = {}
        self.policy.model.eval()
        if self.held_out:
            values["held_out/reward"] = self._held_out_reward()
        if self.evaluate is not None or self.settings.select != "last":
            candidate = self._save_model(self.work_dir / "candidates" / f"step-{step:06d}")
            if self.evaluate is not None:
                values["held_out/perception"] = float(self.evaluate(candidate))
        chosen = {"heldOutReward": "held_out/reward", "heldOutPerception": "held_out/perception"}
        if self.settings.select != "last":
            self.scores[step] = values[chosen[self.settings.select]]
        return values

    def _held_out_reward(self) -> float:
        import torch

        s, rewards = self.settings, []
        for begin in range(0, len(self.held_out), s.batch_prompts):
            batch = self.held_out[begin : begin + s.batch_prompts]
            prompts = self.policy.encode(batch, s.max_prompt_tokens)
            outputs = self.policy.sample(prompts, 1, s.max_response_tokens, 0.0, torch.Generator())
            truths = [b.ground_truth for b in batch]
            texts, done = self.policy.decode(outputs), outputs.finished.tolist()
            rewards += [r.reward for r in score_batch(texts, truths, self.similarity, self.parameters, done)]
        return float(np.mean(rewards))

    def _save_model(self, target: Path) -> Path:
        temporary = target.with_name(f".{target.name}.writing")
        with writing(target):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            self.policy.save(temporary)
            publish(temporary, target)
        return target

    def _drop_candidates(self) -> None:
        """Runs after the checkpoint is published: what it does not refer to is never needed again."""
        keep = f"step-{best_step(self.scores, self.steps):06d}"
        for candidate in (self.work_dir / "candidates").glob("*"):
            if candidate.name != keep:
                shutil.rmtree(candidate)

    # -- the end -------------------------------------------------------------------------------------------------------

    def _finish(self, history: list[dict[str, float]]) -> GrpoResult:
        best = best_step(self.scores, self.steps)
        target = self.work_dir / "model"
        candidate = self.work_dir / "candidates" / f"step-{best:06d}"
        if self.settings.select != "last" and candidate.is_dir():
            temporary = self.work_dir / ".model.writing"
            with writing(target):
                shutil.rmtree(temporary, ignore_errors=True)
                shutil.copytree(candidate, temporary)
                publish(temporary, target)
        else:
            self._save_model(target)
        return record_result(self.work_dir, self.fingerprint, self.steps, best, history)
