"""The laboratory: a control plane that logs who writes what, accounts, controllers as processes, bulk creation."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fakes.kubelet import Connection
from servers.kube import KubeApi, binaries, eventually
from servers.running import free_port

JOBSET = "jobset-v0.10.1"
OURS, THEIRS = "viper-operator", "jobset-controller"
#: Connections that create resources at the same time.
CONNECTIONS = 8
PAUSE = threading.Event()  # never set


@dataclass(frozen=True)
class Write:
    """A successful mutating request. Times are seconds since the epoch."""

    user: str
    verb: str
    resource: str
    name: str
    received: float
    answered: float
    status: int


class Lab:
    """A control plane with one namespace and an account for each side; `__exit__` ends everything."""

    def __init__(self, folder: Path, nodes: int, gpus: int) -> None:
        self.folder, self._nodes, self._gpus = folder, nodes, gpus
        self.kube = KubeApi(folder / "kube", audit=True, flags={"audit-log-maxsize": "4000"})
        writes = ["create", "update", "patch", "delete", "deletecollection"]
        accounts = [f"system:serviceaccount:{n}:{n}" for n in (OURS, THEIRS)]
        resources = [{"group": "viper.dev"}, {"group": "jobset.x-k8s.io"}]
        rules = [
            {"level": "Metadata", "users": accounts, "verbs": writes},
            {"level": "Metadata", "resources": resources, "verbs": ["create"]},
            {"level": "Metadata", "resources": [{"group": "batch", "resources": ["jobs"]}], "verbs": ["create"]},
            {"level": "None"},
        ]
        policy = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": rules}
        (self.kube.folder / "audit.yaml").write_text(yaml.safe_dump(policy))
        self.writes: list[Write] = []
        self._read = 0
        self.processes: list[Process] = []

    def __enter__(self) -> Lab:
        self.kube.start()
        self.kube.fake_nodes(self._nodes, gpus=self._gpus, cpu="100000", memory="400Ti")
        self.api = Connection(self.kube.kubeconfig)
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        for name in (OURS, THEIRS, "plain"):
            self.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        for name in (OURS, THEIRS):
            account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
            subject = {"kind": "ServiceAccount", "name": name, "namespace": name}
            role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
            binding = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding"}
            self.kube.apply(account, namespace=name)
            self.kube.apply({**binding, "metadata": {"name": name}, "roleRef": role, "subjects": [subject]})
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.stop(signal.SIGKILL)
        self.kube.stop()

    def kubeconfig(self, account: str) -> Path:
        """How an account of ours reaches the API server."""
        path = self.folder / f"{account}.conf"
        if path.exists():
            return path
        token = self.kube.kubectl("-n", account, "create", "token", account, "--duration=24h").strip()
        content = yaml.safe_load(self.kube.kubeconfig.read_text())
        content["users"][0]["user"] = {"token": token}
        path.write_text(yaml.safe_dump(content))
        return path

    # ---- what was written ----------------------------------------------------------------------------------------

    def look(self) -> list[Write]:
        """All writes so far, but those of leases; in the order in which they were answered."""
        with (self.kube.folder / "audit.log").open() as log:
            log.seek(self._read)
            while (line := log.readline()).endswith("\n"):
                self._read = log.tell()
                event = json.loads(line)
                about = event.get("objectRef", {})
                status = event.get("responseStatus", {}).get("code", 0)
                tried = "dryRun=All" in event.get("requestURI", "")  # writes nothing
                if not tried and 200 <= status < 300 and about.get("resource") not in ("leases", "serviceaccounts"):
                    kind = "/".join(p for p in (about["resource"], about.get("subresource")) if p)
                    received, answered = _seconds(event["requestReceivedTimestamp"]), _seconds(event["stageTimestamp"])
                    user = event["user"]["username"].rpartition(":")[2]
                    self.writes.append(
                        Write(user, event["verb"], kind, about.get("name", ""), received, answered, status)
                    )
        return self.writes

    def count(self, user: str, since: int = 0) -> Counter[str]:
        """Writes of an account by what it wrote, after the first `since` writes of all."""
        return Counter(w.resource for w in self.look()[since:] if w.user == user)

    def settle(self, user: str, quiet_s: float) -> None:
        """Returns once an account has written nothing for a while."""
        last, since = -1, time.monotonic()
        while time.monotonic() - since < quiet_s:
            PAUSE.wait(0.5)
            if (seen := self.count(user).total()) != last:
                last, since = seen, time.monotonic()

    # ---- creation ------------------------------------------------------------------------------------------------

    def create(self, path: str, bodies: Iterable[Mapping[str, Any]]) -> None:
        """Creates resources as fast as the API server takes them; the administrator's requests are never held back."""
        content = yaml.safe_load(self.kube.kubeconfig.read_text())
        headers = {
            "Authorization": f"Bearer {content['users'][0]['user']['token']}",
            "Content-Type": "application/json",
        }
        tls = ssl.create_default_context(cafile=content["clusters"][0]["cluster"]["certificate-authority"])
        waiting = [json.dumps(body).encode() for body in bodies]

        async def worker(session: aiohttp.ClientSession) -> None:
            while waiting:
                async with session.post(f"{self.kube.url}{path}", data=waiting.pop(), ssl=tls) as response:
                    if response.status != 201:
                        raise RuntimeError(await response.text())

        async def all_of_them() -> None:
            async with aiohttp.ClientSession(headers=headers) as session:
                await asyncio.gather(*(worker(session) for _ in range(CONNECTIONS)))

        asyncio.run(all_of_them())

    # ---- controllers ---------------------------------------------------------------------------------------------

    def operator(self, store: str) -> Operator:
        """Starts the operator."""
        environment = {
            "KUBECONFIG": str(self.kubeconfig(OURS)),
            "VIPER_NAMESPACE": OURS,
            "VIPER_STORE": store,
            "VIPER_TRACKING": "sqlite:////none",
            "VIPER_STAGE_IMAGE": "viper/cpu:bench",
            "VIPER_CREDENTIALS_SECRET": "viper-store",
            "VIPER_SWEEP_SECONDS": "30",
        }
        made = Operator(environment, self.folder / "operator.log")
        self.processes.append(made)
        return made

    def jobset(self) -> Process:
        """Starts JobSet's controller as its own manifests do, leader election and all, but without its webhooks: what
        they would fill in, the JobSets have already, and it costs nothing."""
        folder = binaries("api", "jobset")
        self.kube.apply(yaml.safe_load((folder / f"{JOBSET}.yaml").read_text()))
        crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/jobsets.jobset.x-k8s.io"
        eventually(lambda: "Established" in json.dumps(self.api.call("GET", crd).get("status")))
        health = f"127.0.0.1:{free_port()}"
        certificates = self.folder / "certificates"
        _certificate(certificates)
        settings = {
            "apiVersion": "config.jobset.x-k8s.io/v1alpha1",
            "kind": "Configuration",
            "leaderElection": {"leaderElect": True, "resourceNamespace": THEIRS},
            "internalCertManagement": {"enable": False},
            "webhook": {"port": free_port(), "certDir": str(certificates)},
            "metrics": {"bindAddress": "0"},
            "health": {"healthProbeBindAddress": health},
        }
        path = self.folder / "jobset.yaml"
        path.write_text(yaml.safe_dump(settings))
        command = [str(folder / JOBSET), "--config", str(path)]
        made = Process(command, {"KUBECONFIG": str(self.kubeconfig(THEIRS))}, self.folder / "jobset.log")
        self.processes.append(made)

        def ready() -> bool:
            try:
                with urllib.request.urlopen(f"http://{health}/readyz", timeout=5) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        made.until(ready, 120)
        return made


class Process:
    """A controller. One that ends by itself is started again, as a kubelet does; `restarts` counts that."""

    def __init__(self, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        self.log, self.restarts = log, 0
        self._command, self._environment = command, {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        self._process, self._over = self._launch(), False
        threading.Thread(target=self._keep, daemon=True).start()

    def _launch(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as target:
            return subprocess.Popen(self._command, env=self._environment, stdout=target, stderr=target)

    def _keep(self) -> None:
        while not self._over:
            self._process.wait()
            PAUSE.wait(1)
            if not self._over:
                self.restarts += 1
                self._process = self._launch()

    def until(self, look: Callable[[], Any], patience_s: float) -> None:
        """Returns once `look` is content; raises `RuntimeError` when that takes too long."""
        deadline = time.monotonic() + patience_s
        while not look():
            if time.monotonic() > deadline:
                raise RuntimeError(f"too late ({patience_s:g} s):\n{self.log.read_text()[-3000:]}")
            PAUSE.wait(0.5)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ends it."""
        self._over = True
        if self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(60)

    def memory(self) -> dict[str, float]:
        """Resident memory in MiB: now, and the most that there ever was."""
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines())
        return {"rss": int(lines["VmRSS"].split()[0]) / 1024, "peak": int(lines["VmHWM"].split()[0]) / 1024}

    def cpu(self) -> float:
        """Processor seconds so far (fields 14 and 15 of /proc/PID/stat)."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Operator(Process):
    """`viper-operator`."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._port = free_port()
        ports = {"VIPER_METRICS_PORT": str(self._port), "VIPER_HEALTH_PORT": str(free_port())}
        super().__init__([sys.executable, "-m", "viper_operator.main"], {**environment, **ports}, log)

    def metrics(self) -> dict[str, float]:
        """Sum over all labels, by metric; empty while it does not answer."""
        found: Counter[str] = Counter()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=20) as answer:
                for line in answer.read().decode().splitlines():
                    if not line.startswith("#"):
                        name, _, value = line.rpartition(" ")
                        found[name.partition("{")[0]] += float(value)  # type: ignore[assignment]
        except OSError:
            return {}
        return dict(found)

    def acts(self) -> None:
        """Returns once it leads."""
        self.until(lambda: self.metrics().get("viper_leader"), 300)

    def has_seen(self, resources: int) -> None:
        """Returns once it leads and has reconciled that many."""

        def done() -> bool:
            found = self.metrics()
            return bool(found.get("viper_leader")) and found.get("viper_reconciles_total", 0) >= resources

        self.until(done, 900)


def _seconds(time: str) -> float:
    return dt.datetime.fromisoformat(time).timestamp()


def _certificate(folder: Path) -> None:
    """For the webhook server, which nobody asks: JobSet's controller does not start without."""
    folder.mkdir(exist_ok=True)
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "none")])
    now = dt.datetime.now(dt.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    signed = made.not_valid_before(now).not_valid_after(now + dt.timedelta(days=2)).sign(key, hashes.SHA256())
    form = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    (folder / "tls.key").write_bytes(key.private_bytes(*form))
    (folder / "tls.crt").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
