"""One optimiser step by verl's code and by TRL's: the same loss and gradients where equation 8 speaks, and why not
elsewhere (docs/verl.md)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import equations
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loss_cases import BOUNDS, Case, cases, trl_loss
from safetensors.torch import load_file
from tiny_qwen import samples

from support.verl_environment import Answers, ask
from viper.spec.engines import VerlSettings
from viper.training.local.policy import Policy, PromptBatch
from viper.training.local.rollouts import Rollout, chunk_of
from viper.training.local.trl_loss import SharedPromptGrpo
from viper.training.settings import GrpoSettings, group_advantages
from viper.training.verl.config import VerlHardware, VerlPaths, arguments, verl_config

pytestmark = [pytest.mark.torch, pytest.mark.slow]

DUAL = 3.0


#: verl as equation 8 is printed, and as it is shipped.
PRINTED, SHIPPED = "printed", "shipped"


def given_to_verl(dual_clip: float | None) -> list[str]:
    """What viper hands to `main_ppo`, which configures verl's loss."""
    nowhere = Path("/nowhere")
    paths = VerlPaths(nowhere, nowhere, nowhere, nowhere / "checkpoints", nowhere, "http://localhost")
    engine = VerlSettings(dual_clip=dual_clip)
    return arguments(verl_config(GrpoSettings(micro_batch=4), paths, VerlHardware(1, 8), engine, steps=1))


@pytest.fixture(scope="module")
def verl() -> Iterator[Answers]:
    with Answers("verl_losses.py", {PRINTED: given_to_verl(None), SHIPPED: given_to_verl(DUAL)}) as running:
        yield running


@pytest.fixture(scope="module")
def trainer(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> SharedPromptGrpo:
    sizes = GrpoSettings(batch_prompts=4, mini_batch_prompts=2, group_size=3, max_response_tokens=8)
    return SharedPromptGrpo(Policy(tiny_model), sizes, tmp_path_factory.mktemp("trl"))


@pytest.fixture(scope="module")
def prompts(trainer: SharedPromptGrpo) -> PromptBatch:
    return trainer.policy.encode(samples(1), 100)


def step(verl: Answers, setting: str, case: Case, passes: list[list[int]] | None = None) -> dict[str, Any]:
    """verl's answer, gradients cut to the outputs' tokens."""
    count = len(case.current)
    found = verl(
        {
            "as": setting,
            "logprobs": case.padded(case.current).tolist(),
            "old": case.padded(case.old).tolist(),
            "mask": case.mask.tolist(),
            "rewards": [0.0] * count,
            "groups": list(range(count)),
            "advantages": case.advantages,
            "passes": passes or [list(range(count))],
        }
    )
    cut = [row[: len(tokens)] for row, tokens in zip(found["gradient"], case.current, strict=True)]
    return {**found, "gradient": cut}


def advantages_of(verl: Answers, rewards: list[list[float]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """verl's, for groups of rewards."""
    flat = [r for group in rewards for r in group]
    ones = [[1.0]] * len(flat)
    found = verl(
        {
            "as": SHIPPED,
            "logprobs": ones,
            "old": ones,
            "mask": ones,
            "rewards": flat,
            "groups": [g for g, group in enumerate(rewards) for _ in group],
            "advantages": None,
            "passes": [],
        }
    )
    return np.array(found["advantages"]).reshape(len(rewards), -1)


def close(found: list[list[float]], wanted: list[list[float]]) -> None:
    for row, expected in zip(found, wanted, strict=True):
        assert row == pytest.approx(expected, rel=1e-6, abs=1e-7)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases(), split=st.integers(1, 3))
def test_without_dual_clip_loss_and_gradients_are_trl_s_and_equation_8(
    *, verl: Answers, trainer: SharedPromptGrpo, prompts: PromptBatch, case: Case, split: int
) -> None:
    def put(logprobs: Any) -> None:
        trainer.policy.completion_logprobs = lambda *_: logprobs  # type: ignore[method-assign]

    rows = list(range(len(case.current)))
    found = step(verl, PRINTED, case, [rows[i : i + split] for i in range(0, len(rows), split)])
    loss, gradient = trl_loss(trainer, prompts, case, put)
    assert found["loss"] == pytest.approx(loss, rel=1e-6, abs=1e-7)
    close(found["gradient"], gradient)
    reference = equations.gradient(case.current, case.old, case.advantages, BOUNDS)
    close(found["gradient"], reference)


def test_both_bounds_bite_alike(verl: Answers, trainer: SharedPromptGrpo, prompts: PromptBatch) -> None:
    ratios = [[1.5, 1.1, 0.5], [1.2], [1.5, 0.5], [0.79, 0.81, 1.0, 1.3]]
    old = [[-1.0 - 0.1 * i for i in range(len(row))] for row in ratios]
    current = [[o + float(np.log(r)) for o, r in zip(a, b, strict=True)] for a, b in zip(old, ratios, strict=True)]
    case = Case(current, old, [2.0, 0.5, -1.0, -0.4])

    def put(logprobs: Any) -> None:
        trainer.policy.completion_logprobs = lambda *_: logprobs  # type: ignore[method-assign]

    found, (loss, gradient) = step(verl, PRINTED, case), trl_loss(trainer, prompts, case, put)
    assert found["loss"] == pytest.approx(loss, rel=1e-6)
    close(found["gradient"], gradient)
    held = [[g == 0 for g in row] for row in found["gradient"]]
    assert held == [[True, False, False], [False], [False, True], [True, False, False, False]]


@given(case=cases())
def test_with_verl_s_dual_clip_only_bad_outputs_grown_threefold_differ(verl: Answers, case: Case) -> None:
    answer = step(verl, SHIPPED, case)
    bounds = BOUNDS._replace(dual=DUAL)
    wanted = equations.dual_clip_loss(case.current, case.old, case.advantages, bounds)
    assert answer["loss"] == pytest.approx(wanted, rel=1e-6, abs=1e-7)
    close(answer["gradient"], equations.gradient(case.current, case.old, case.advantages, bounds))
    plain = equations.gradient(case.current, case.old, case.advantages, BOUNDS)
    grown = [
        [a < 0 and equations.ratio(now, then) > DUAL for now, then in zip(tokens, before, strict=True)]
        for tokens, before, a in zip(case.current, case.old, case.advantages, strict=True)
    ]
    for found, paper, big in zip(answer["gradient"], plain, grown, strict=True):
        assert [0.0 if b else g for g, b in zip(paper, big, strict=True)] == pytest.approx(found, rel=1e-6, abs=1e-7)


def test_the_dual_clip_takes_the_gradient_that_equation_8_keeps(verl: Answers) -> None:
    case = Case([[-1.0 + float(np.log(4.0))]], [[-1.0]], [-0.5])
    assert step(verl, PRINTED, case)["loss"] == pytest.approx(0.5 * 4)
    assert step(verl, PRINTED, case)["gradient"] == [[pytest.approx(0.5 * 4)]]
    assert step(verl, SHIPPED, case)["loss"] == pytest.approx(0.5 * 3)
    assert step(verl, SHIPPED, case)["gradient"] == [[0.0]]


@given(rewards=st.lists(st.lists(st.floats(0, 1, width=32), min_size=5, max_size=5), min_size=1, max_size=4))
def test_advantages_differ_by_the_epsilon_alone(verl: Answers, rewards: list[list[float]]) -> None:
    values = [group for group in rewards if np.std(group) > 1e-3] or [[0.0, 0.0, 0.0, 0.0, 1.0]]
    found, ours = advantages_of(verl, values), group_advantages(np.array(values))
    for group, theirs, mine in zip(values, found, ours, strict=True):
        spread = float(np.std(group, ddof=1))
        assert theirs == pytest.approx(equations.advantages(group, epsilon=1e-6), rel=2e-3, abs=1e-4)
        assert theirs * (spread + 1e-6) == pytest.approx(mine * (spread + 1e-4), rel=2e-3, abs=1e-5)


def test_a_group_of_equal_rewards_teaches_verl_nothing_but_rounding(verl: Answers) -> None:
    equal = [[0.05 + 0.95 * k / 1000] * 5 for k in range(1000)]
    assert (group_advantages(np.array(equal)) == 0).all()
    found = np.abs(advantages_of(verl, equal)).max(1)
    assert 0 < found.max() < 0.1  # float32's rounding over ε = 1e-6, where TRL's and ours give exactly 0


# ---- one step of the model ----


def test_a_step_of_the_model_is_the_same_by_verl_s_engine_and_by_trl(tiny_model: Path, tmp_path: Path) -> None:
    sizes = GrpoSettings(
        batch_prompts=4, mini_batch_prompts=4, group_size=3, max_response_tokens=8, learning_rate=1e-3, micro_batch=4
    )
    ours = SharedPromptGrpo(Policy(tiny_model), sizes, tmp_path / "trl")
    policy, rows = ours.policy, samples(4)
    prompts = policy.encode(rows, 100)
    drawn = policy.sample(prompts, 3, 8, 1.0, torch.Generator().manual_seed(3))
    rewards = np.array([[1.0, 0.05, 0.3], [0.5, 0.6, 0.5], [0.0, 0.5, 1.0], [0.2, 0.2, 0.9]])
    rollout = Rollout(rows, 3, prompts, drawn, [], [], group_advantages(rewards).reshape(-1))
    with torch.no_grad():  # weights have moved since the outputs were drawn, far enough for both bounds
        for weight in policy.model.parameters():
            noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel()))
            weight.add_(0.1 * weight.std() * noise)
    policy.save(tmp_path / "moved")

    policy.model.train()
    loss, share, passes = 0.0, {"clip/low": 0.0, "clip/high": 0.0}, [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    for part in passes:
        found, clipped = ours.loss_of(chunk_of(rollout, part))
        (found * len(part) / 12).backward()
        loss += found.item() * len(part) / 12
        share = {name: share[name] + clipped[name] for name in share}
    assert min(share.values()) > 0  # both bounds bite
    gradients = {name: p.grad.clone() for name, p in policy.model.named_parameters()}

    step_of_verl = by_verl(rollout, prompts, tmp_path, sizes)
    assert step_of_verl["loss"] == pytest.approx(loss, rel=1e-4, abs=1e-6)
    theirs = load_file(tmp_path / "gradients.safetensors")
    assert set(theirs) == set(gradients)
    for name, gradient in gradients.items():
        torch.testing.assert_close(theirs[name], gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max()) + 1e-7)

    optimizer = ours.create_optimizer()
    norm = torch.nn.utils.clip_grad_norm_(policy.model.parameters(), sizes.max_grad_norm)
    assert step_of_verl["grad_norm"] == pytest.approx(float(norm), rel=1e-4)
    optimizer.step()
    moved = load_file(tmp_path / "weights.safetensors")
    for name, weight in policy.model.named_parameters():
        # AdamW's first step has the sign of the gradient, which rounding decides where there is hardly any.
        known = gradients[name].abs() > 1e-3 * gradients[name].abs().max()
        torch.testing.assert_close(moved[name][known], weight.detach()[known], rtol=0, atol=0.01 * sizes.learning_rate)
        assert known.any() or not gradients[name].any()


def by_verl(rollout: Rollout, prompts: PromptBatch, tmp_path: Path, sizes: GrpoSettings) -> Any:
    """The step by verl's engine, starting from the model in `moved`."""
    outputs = []
    for i in range(12):
        sample, mask = rollout.samples[i // 3], rollout.outputs.mask[i].bool()
        files = [tmp_path / f"{i // 3}-{k}.png" for k in range(len(sample.images))]
        for image, file in zip(sample.images, files, strict=True):
            image.save(file)
        prompt = prompts.input_ids[i // 3][prompts.attention_mask[i // 3].bool()]
        outputs.append(
            {
                "prompt": prompt.tolist(),
                "response": rollout.outputs.ids[i][mask].tolist(),
                "old": rollout.outputs.logprobs[i][mask].tolist(),
                "advantage": float(rollout.advantages[i]),
                "images": [str(file) for file in files],
            }
        )
    paths = VerlPaths(tmp_path / "moved", tmp_path, tmp_path, tmp_path / "checkpoints", tmp_path, "http://localhost")
    engine = VerlSettings(dtype="float32", rollout="hf_cpu", workers=1, dual_clip=None)
    config = verl_config(sizes, paths, VerlHardware(1, 1, "cpu"), engine, steps=1)
    return ask("verl_step.py", {"arguments": arguments(config), "outputs": outputs, "to": str(tmp_path)})
