"""The one-node cluster of `make cluster`, and what it could leave behind on a machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from servers.kube import Cluster, binaries

_SCRIPTS = Path(__file__).parents[1] / "cluster"
_STATE = Path(os.environ.get("VIPER_CLUSTER", "/var/lib/viper-cluster"))
_FOLDERS = (
    _STATE,
    *map(Path, ("/run/viper-cluster", "/run/containerd", "/var/lib/kubelet", "/var/lib/cni", "/var/log/containers")),
    *map(Path, ("/var/log/pods", "/usr/libexec/kubernetes", "/run/netns")),
)
_SERVERS = {"etcd", "kubelet", "kube-proxy", "containerd", "containerd-shim-runc-v2", "coredns", "pause"}


class OneNode(Cluster):
    """A cluster with a real node, made by tests/cluster/up.sh."""

    def up(self) -> None:
        """Starts what does not run."""
        self.bin = binaries("kubectl")
        self.kubeconfig = Path(_run("up.sh").splitlines()[-1])

    def down(self) -> None:
        """Removes it."""
        _run("down.sh")

    def is_up(self) -> bool:
        """Whether there is one, be it of another session; files that a killed one left are none."""
        made = '[ -f "$STATE/mode" ] && { [ "$(mode)" = kind ] || alive etcd; }'
        return "KUBECONFIG" in os.environ or _settings(made).returncode == 0

    def images(self, *names: str) -> dict[str, str]:
        """Builds images/<name> where they changed, imports them, and returns their full names."""
        lines = _run("images.sh", *names).splitlines()[-len(names) :]
        return dict(zip(names, lines, strict=True))


def traces() -> set[str]:
    """Processes, mounts, interfaces, iptables rules, cgroups, folders and kernel settings that a cluster changes."""
    return set(_traces())


def _traces() -> Iterator[str]:
    for exe in Path("/proc").glob("[0-9]*/exe"):
        try:
            program = exe.readlink()
        except OSError:  # it has ended, or is a kernel thread
            continue
        if program.name in _SERVERS and str(_STATE) in (exe.parent / "cmdline").read_text(errors="replace"):
            yield f"process {program.name}"
    for line in Path("/proc/mounts").read_text().splitlines():
        if str(_STATE) in line or "/run/viper-cluster" in line:
            yield f"mount {line.split()[1]}"
    yield from (f"interface {path.name}" for path in Path("/sys/class/net").iterdir())
    for command in ("iptables-save", "ip6tables-save"):
        listed = subprocess.run([command], capture_output=True, text=True, check=False).stdout
        yield from (f"rule {line}" for line in listed.splitlines() if line.startswith("-A") or ":KUBE" in line)
    yield from (f"cgroup {path}" for path in Path("/sys/fs/cgroup").glob("**/kubepods"))
    yield from (f"folder {path}" for path in _FOLDERS if path.exists())
    names = _settings("echo $SYSCTLS")
    names.check_returncode()
    for name in names.stdout.split():
        yield f"{name} is {Path('/proc/sys', *name.split('.')).read_text().strip()}"


def _settings(command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command after the settings that the scripts share."""
    script = ["bash", "-c", f'. "$0"; {command}', _SCRIPTS / "settings.sh"]
    return subprocess.run(script, capture_output=True, text=True, check=False)


def _run(script: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run([_SCRIPTS / script, *arguments], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        error = subprocess.CalledProcessError(done.returncode, [script, *arguments])
        error.add_note(done.stderr)
        raise error
    return done.stdout.strip()
