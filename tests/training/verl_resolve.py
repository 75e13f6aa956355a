"""Run with the interpreter of verl's environment: what verl makes of the arguments that viper hands to `main_ppo`.

    python verl_resolve.py < {"arguments": […], "validate": true}

prints {"resolved": {key: value}, "unread": [keys]}: verl's configuration after composing, resolving and verl's own
validation (its dataclasses included), and those of the given keys that no code behind `main_ppo` reads.

    python verl_resolve.py keys > viper/training/verl/keys.txt

writes every key that verl's own configuration has.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(importlib.util.find_spec("verl").submodule_search_locations[0])
#: Entry points and engines other than those of `main_ppo` with its V1 trainer and FSDP.
OTHERS = (
    "trainer/main_ppo_v0.py",
    "trainer/ppo/ray_trainer.py",
    "trainer/sft_trainer.py",
    "trainer/sft_trainer_ray.py",
    "trainer/main_generation_server.py",
    "trainer/main_eval.py",
    "experimental/fully_async_policy",
    "experimental/one_step_off_policy",
    "experimental/separation",
    "model_merger",
    "workers/engine/megatron",
    "workers/engine/veomni",
    "workers/engine/torchtitan",
    "workers/engine/automodel",
    "workers/engine/mindspeed",
    "workers/engine/fsdp/fsdp_turbo_impl.py",
    "workers/engine_workers_tinker.py",
)
#: Where a dataclass checks its own fields, which uses none of them.
DECLARATIONS = ("workers/config", "trainer/config")

#: verl hands what is under these on: to Ray, to our sampler, to our reward function.
HANDED_ON = (
    "ray_kwargs.ray_init.",
    "trainer.v1.sampler.sampler_kwargs.",
    "reward.custom_reward_function.reward_kwargs",
)


def compose(arguments: list[str]) -> Any:
    """verl's configuration as `main_ppo` gets it."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    overrides = [a for a in arguments if not a.startswith("hydra.")]  # Hydra's own, which it keeps to itself
    with initialize_config_dir(str(ROOT / "trainer" / "config"), version_base=None):
        return hydra_compose("ppo_trainer", overrides=overrides)


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys of everything that is no map, lists as they are."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from flat(inner, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, value


class Reads:
    """Names that verl's code reads: of the configuration itself, and of anything."""

    def __init__(self) -> None:
        trees = {p.relative_to(ROOT).as_posix(): ast.parse(p.read_text("utf-8")) for p in ROOT.rglob("*.py")}
        trees = {path: tree for path, tree in trees.items() if not path.startswith(OTHERS)}
        used = {name for tree in trees.values() for name in self._names(tree)}
        self.sections: set[str] = set()
        self.leaves: set[str] = set()
        for path, tree in trees.items():
            self._walk(tree, used, path.startswith(DECLARATIONS))

    @staticmethod
    def _names(tree: ast.AST) -> Iterator[str]:
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                yield node.id
            elif isinstance(node, ast.Attribute):
                yield node.attr

    def _walk(self, node: ast.AST, used: set[str], declares: bool) -> None:
        dead = isinstance(node, ast.FunctionDef) and node.name not in used and not node.decorator_list
        if dead and not node.name.startswith("__"):
            return
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            self._read(node.value, node.attr, declares)
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            self._read(node.value, str(node.slice.value), declares)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            first = node.args[0]
            if node.func.attr in ("get", "select", "pop") and isinstance(first, ast.Constant):
                self._read(node.func.value, str(first.value), declares)
        for child in ast.iter_child_nodes(node):
            self._walk(child, used, declares)

    def _read(self, owner: ast.expr, name: str, declares: bool) -> None:
        of_self = isinstance(owner, ast.Name) and owner.id == "self"
        if not (declares and of_self):
            self.leaves.add(name)
        whole = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
        if whole == "config":
            self.sections.add(name)

    def unread(self, key: str) -> bool:
        """Whether the key's section, or its last name, occurs nowhere."""
        if key.startswith(HANDED_ON):
            return False
        parts = key.split(".")
        return parts[0] not in self.sections or parts[-1] not in self.leaves


def main() -> None:
    """Reads the request from standard input and prints the answer as the last line."""
    from omegaconf import OmegaConf

    if sys.argv[1:] == ["keys"]:
        print("\n".join(sorted(key for key, _ in flat(OmegaConf.to_container(compose([]), resolve=True)))))
        return
    request = json.load(sys.stdin)
    config = compose(request["arguments"])
    if request.get("validate"):
        from verl.trainer.ppo.utils import need_critic, need_reference_policy
        from verl.utils.config import omega_conf_to_dataclass, validate_config

        validate_config(config, need_reference_policy(config), need_critic(config))
        for section in (config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout, config.algorithm):
            omega_conf_to_dataclass(section)
    resolved = dict(flat(OmegaConf.to_container(config, resolve=True)))
    reads = Reads()
    keys = [a.partition("=")[0].lstrip("+") for a in request["arguments"] if not a.startswith("hydra.")]
    print(json.dumps({"resolved": resolved, "unread": [k for k in keys if reads.unread(k)]}, default=str))


if __name__ == "__main__":
    main()
