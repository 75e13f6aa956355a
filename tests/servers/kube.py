"""A real Kubernetes control plane for tests: etcd, API server, controller-manager; kwok's nodes where pods shall run.

No node of its own, no root: pods stay Pending unless `fake_nodes` is called. Everything lies in one folder and listens
on free loopback ports, so several run side by side.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from servers.running import free_port

_HERE = Path(__file__).parent
_POLL = threading.Event()  # never set: a pause between two looks at a server that is starting

#: Before a command: the kernel kills it when the thread that starts it is gone, be it by SIGKILL.
_DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()

#: Those that act on what the operator or the chart creates.
CONTROLLERS = (
    "job-controller",
    "cronjob-controller",
    "ttl-after-finished-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "root-ca-certificate-publisher-controller",
    "pod-garbage-collector-controller",
    "taint-eviction-controller",
    "deployment-controller",
    "replicaset-controller",
    "statefulset-controller",
    "disruption-controller",
    "endpointslice-controller",
    "clusterrole-aggregation-controller",
    "resourcequota-controller",
    "persistentvolumeclaim-protection-controller",
)


def binaries(*groups: str) -> Path:
    """The folder of the Kubernetes binaries; builds those of `groups` (see tests/cluster/build.sh) that are missing."""
    script = _HERE.parent / "cluster" / "build.sh"
    environment = {**os.environ, "PYTHON": sys.executable}
    built = subprocess.run([script, *groups], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return Path(built.stdout.strip().splitlines()[-1])


class Cluster:
    """A Kubernetes cluster as its administrator sees it."""

    bin: Path
    kubeconfig: Path

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """kubectl's output; raises `subprocess.CalledProcessError` with its stderr."""
        done = subprocess.run(
            [self.bin / "kubectl", "--kubeconfig", self.kubeconfig, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            error = subprocess.CalledProcessError(done.returncode, ["kubectl", *arguments], done.stdout, done.stderr)
            error.add_note(done.stderr)
            raise error
        return done.stdout

    def apply(self, *objects: Mapping[str, Any], namespace: str = "default") -> None:
        """Server-side apply of objects."""
        documents = yaml.safe_dump_all([dict(one) for one in objects])
        self.kubectl("-n", namespace, "apply", "--server-side", "-f", "-", stdin=documents)

    def namespace(self, prefix: str = "test", *, enforce: str = "restricted") -> str:
        """A new namespace under this Pod Security level, with its default service account."""
        name = f"{prefix}-{secrets.token_hex(4)}"
        labels = {"pod-security.kubernetes.io/enforce": enforce}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        self.kubectl("-n", name, "wait", "--for=create", "serviceaccount/default", "--timeout=60s")
        return name


class KubeApi(Cluster):
    """A control plane in `folder`; `stop` and `start` bring it back with the same data, port and credentials.

    With `audit`, every request is in `requests()`. `flags` go to the API server as `--name=value`.
    """

    def __init__(self, folder: Path, *, audit: bool = False, flags: Mapping[str, str] | None = None) -> None:
        self.bin = binaries("api")
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port, self._etcd_port = free_port(), free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.kubeconfig = self.folder / "admin.conf"
        self._token = secrets.token_hex(16)
        self._flags, self._audit = dict(flags or {}), self.folder / "audit.log" if audit else None
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._prepare()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts what does not run and waits until it answers."""
        try:
            self.start_etcd()
            self.start_api()
            self.start_controllers()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kills everything, the data stay."""
        for name in reversed(list(self._running)):
            self.kill(name)

    def kill(self, name: str) -> None:
        """SIGKILL to `etcd`, `kube-apiserver`, `kube-controller-manager`, `kube-scheduler` or `kwok`."""
        if (process := self._running.pop(name, None)) is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def signal(self, name: str, number: signal.Signals) -> None:
        """Sends a signal to one of them, SIGSTOP and SIGCONT for example."""
        os.killpg(self._running[name].pid, number)

    def start_etcd(self) -> None:
        client = f"http://127.0.0.1:{self._etcd_port}"
        self._launch(
            "etcd",
            {
                "data-dir": str(self.folder / "etcd"),
                "listen-client-urls": client,
                "advertise-client-urls": client,
                "listen-peer-urls": "http://127.0.0.1:0",
                "unsafe-no-fsync": "true",  # nothing here has to survive the machine
                "quota-backend-bytes": str(4 << 30),
                "log-level": "warn",
            },
        )
        self._until("etcd", f"{client}/readyz", None)

    def start_api(self) -> None:
        """Starts the API server, on the port it had before."""
        folder = self.folder
        audit = {"audit-policy-file": f"{folder}/audit.yaml", "audit-log-path": str(self._audit)} if self._audit else {}
        self._launch(
            "kube-apiserver",
            {
                "etcd-servers": f"http://127.0.0.1:{self._etcd_port}",
                "bind-address": "127.0.0.1",
                "advertise-address": "127.0.0.1",
                "endpoint-reconciler-type": "none",
                "secure-port": str(self.port),
                "cert-dir": f"{folder}/pki",
                "token-auth-file": f"{folder}/tokens.csv",
                "authorization-mode": "RBAC",
                "service-account-issuer": "https://kubernetes.default.svc",
                "service-account-key-file": f"{folder}/accounts.key",
                "service-account-signing-key-file": f"{folder}/accounts.key",
                "service-cluster-ip-range": "10.0.0.0/24",
                "allow-privileged": "true",
                # Nothing here would take the taint of a new node away again.
                "disable-admission-plugins": "TaintNodesByCondition",
                "profiling": "false",
                **audit,
                **self._flags,
            },
        )
        self._until("kube-apiserver", f"{self.url}/readyz", self._tls)
        self._write_kubeconfig()

    def start_controllers(self) -> None:
        self._launch(
            "kube-controller-manager",
            {
                "kubeconfig": str(self.kubeconfig),
                "controllers": ",".join(CONTROLLERS),
                "service-account-private-key-file": f"{self.folder}/accounts.key",
                "root-ca-file": f"{self.folder}/pki/apiserver.crt",
                "leader-elect": "false",
                "secure-port": "0",
                "kube-api-qps": "2000",
                "kube-api-burst": "4000",
                "concurrent-job-syncs": "20",
                "profiling": "false",
            },
        )

    def restart_api(self) -> None:
        """Kills the API server and starts it again: every watch is cut."""
        self.kill("kube-apiserver")
        self.start_api()

    def fake_nodes(self, count: int, *, gpus: int = 0, cpu: str = "1000", memory: str = "4Ti") -> None:
        """Nodes `fake-<n>` by kwok, a scheduler that fills them, and pods that play as servers/kwok.yaml says."""
        capacity = {"cpu": cpu, "memory": memory, "pods": "10000", "ephemeral-storage": "10Ti"}
        if gpus:
            capacity["nvidia.com/gpu"] = str(gpus)
        nodes = [
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {
                    "name": f"fake-{n}",
                    "labels": {"kubernetes.io/hostname": f"fake-{n}", "kubernetes.io/os": "linux", "type": "kwok"},
                    "annotations": {"kwok.x-k8s.io/node": "fake"},
                },
                "status": {"capacity": capacity, "allocatable": capacity},
            }
            for n in range(count)
        ]
        self.apply({"apiVersion": "v1", "kind": "List", "items": nodes})
        fast = {"kubeconfig": str(self.kubeconfig), "leader-elect": "false", "secure-port": "0"}
        if "kube-scheduler" not in self._running:
            self._launch("kube-scheduler", {**fast, "kube-api-qps": "2000", "kube-api-burst": "4000"})
        if "kwok" not in self._running:
            self._launch(
                "kwok",
                {
                    "kubeconfig": str(self.kubeconfig),
                    "config": str(_HERE / "kwok.yaml"),
                    "manage-all-nodes": "true",
                    "node-lease-duration-seconds": "0",
                    "server-address": f"127.0.0.1:{free_port()}",
                },
            )

    def requests(self) -> Iterator[dict[str, Any]]:
        """The audit events so far (audit.k8s.io/v1), oldest first; needs `audit`."""
        assert self._audit is not None, "KubeApi(audit=True) writes them"
        with self._audit.open() as lines:
            for line in lines:
                if line.endswith("\n"):  # the last may be half written
                    yield json.loads(line)

    @property
    def _tls(self) -> ssl.SSLContext | None:
        certificate = self.folder / "pki" / "apiserver.crt"  # the server writes it on its first start
        return ssl.create_default_context(cafile=str(certificate)) if certificate.exists() else None

    def _prepare(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        (self.folder / "accounts.key").write_bytes(key)
        (self.folder / "tokens.csv").write_text(f"{self._token},admin,admin,system:masters\n")
        policy = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"]}
        (self.folder / "audit.yaml").write_text(yaml.safe_dump({**policy, "rules": [{"level": "Metadata"}]}))

    def _write_kubeconfig(self) -> None:
        cluster = {"server": self.url, "certificate-authority": str(self.folder / "pki" / "apiserver.crt")}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": self._token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "current-context": "test",
        }
        self.kubeconfig.write_text(yaml.safe_dump(content))

    def _launch(self, name: str, flags: Mapping[str, str]) -> None:
        if name in self._running:
            return
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [*_DIES_WITH_US, self.bin / name, *(f"--{flag}={value}" for flag, value in flags.items())],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )

    def _until(self, name: str, url: str, tls: ssl.SSLContext | None, patience_s: int = 120) -> None:
        for _ in range(patience_s * 20):
            if self._running[name].poll() is not None:
                break
            request = urllib.request.Request(url, headers={"Authorization": f"Bearer {self._token}"})  # noqa: S310
            with suppress(OSError, urllib.error.URLError):
                if url.startswith("http:") or (tls := tls or self._tls) is not None:
                    with urllib.request.urlopen(request, timeout=5, context=tls):  # noqa: S310 (our own URL)
                        return
            _POLL.wait(0.05)
        log = (self.folder / f"{name}.log").read_text(errors="replace")
        raise RuntimeError(f"{name} did not start:\n{log[-3000:]}")


def eventually(look: Callable[[], Any], patience_s: float = 60.0) -> Any:
    """The first true answer of `look`, asked ten times a second; raises `TimeoutError` with the last answer."""
    answer = None
    for _ in range(int(patience_s * 10)):
        if answer := look():
            return answer
        _POLL.wait(0.1)
    raise TimeoutError(f"not within {patience_s:g} s; the last answer was {answer!r}")
