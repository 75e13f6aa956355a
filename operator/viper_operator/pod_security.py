"""The "Restricted" Pod Security Standard, of a finished pod template. Pure.

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards (as of Kubernetes 1.35): all of "Baseline"
and of "Restricted". What the standard allows to pods of Windows is not allowed here: our images are of Linux.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
VOLUMES = frozenset(
    ("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret")
)
#: What a projected volume may be made of.
PROJECTED = frozenset(("configMap", "secret", "downwardAPI", "clusterTrustBundle"))
SECCOMP = ("RuntimeDefault", "Localhost")
APPARMOR = ("RuntimeDefault", "Localhost")
APPARMOR_ANNOTATION = "container.apparmor.security.beta.kubernetes.io/"
SELINUX = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
SYSCTLS = frozenset(
    (
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    )
)
#: Bytes of one variable or argument (MAX_ARG_STRLEN), and of all of a program's (a quarter of its stack), in Linux.
LONGEST, MOST_TOGETHER = 128 * 1024, 3 * 2**19
_REFERENCE = re.compile(r"\$\(([-._a-zA-Z0-9]{1,256})\)")
#: Where a probe or a hook could be sent to another host.
PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
HOOKS = ("postStart", "preStop")
ACTIONS = ("httpGet", "tcpSocket")


class MalformedError(ValueError):
    """A part of a pod template has not the form that core/v1 gives it."""


def violations(template: Mapping[str, Any]) -> Iterator[str]:
    """What keeps a finished pod template from "Restricted": field paths, each with what must be. Raises
    `MalformedError`."""
    spec = _map(template, "spec", "")
    security = _map(spec, "securityContext", "spec")
    for name, value in _map(_map(template, "metadata", ""), "annotations", "metadata").items():
        allowed = value in ("", "runtime/default") or str(value).startswith("localhost/")
        if name.startswith(APPARMOR_ANNOTATION) and not allowed:
            yield f"metadata.annotations[{name}] must be runtime/default"
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if _set(spec.get(name)):
            yield f"spec.{name} must not be true"
    for volume, at in _items(spec, "volumes", "spec"):
        if kinds := sorted(k for k, v in volume.items() if k != "name" and v is not None and k not in VOLUMES):
            yield f"{at} must not be a {', '.join(kinds)}"
    for sysctl, at in _items(security, "sysctls", "spec.securityContext"):
        if sysctl.get("name") not in SYSCTLS:
            yield f"{at} is no safe sysctl"
    yield from _shared(security, "spec.securityContext")
    containers = [(c, at) for kind in CONTAINERS for c, at in _items(spec, kind, "spec")]
    inherited = _map(security, "seccompProfile", "spec.securityContext").get("type") in SECCOMP
    not_root = security.get("runAsNonRoot") is True
    for container, at in containers:
        yield from _container(container, at, seccomp=inherited, not_root=not_root)


def _shared(security: Mapping[str, Any], at: str) -> Iterator[str]:
    """What pods and containers may both set."""
    if _set(_map(security, "windowsOptions", at).get("hostProcess")):
        yield f"{at}.windowsOptions.hostProcess must not be true"
    if security.get("runAsNonRoot") not in (None, True):
        yield f"{at}.runAsNonRoot must be true"
    if security.get("runAsUser") in (0, "0"):
        yield f"{at}.runAsUser must not be 0"
    seccomp = _map(security, "seccompProfile", at)
    if seccomp and seccomp.get("type") not in SECCOMP:
        yield f"{at}.seccompProfile.type must be RuntimeDefault or Localhost"
    apparmor = _map(security, "appArmorProfile", at)
    if apparmor and apparmor.get("type") not in APPARMOR:
        yield f"{at}.appArmorProfile.type must be RuntimeDefault or Localhost"
    selinux = _map(security, "seLinuxOptions", at)
    if (selinux.get("type") or "") not in SELINUX:
        yield f"{at}.seLinuxOptions.type must be one of {', '.join(SELINUX[1:])}"
    for name in ("user", "role"):
        if selinux.get(name):
            yield f"{at}.seLinuxOptions.{name} must not be set"


def _container(container: Mapping[str, Any], at: str, *, seccomp: bool, not_root: bool) -> Iterator[str]:
    security, here = _map(container, "securityContext", at), f"{at}.securityContext"
    yield from _shared(security, here)
    if _set(security.get("privileged")):
        yield f"{here}.privileged must not be true"
    if security.get("allowPrivilegeEscalation") is not False:
        yield f"{here}.allowPrivilegeEscalation must be false"
    if not not_root and security.get("runAsNonRoot") is not True:
        yield f"{here}.runAsNonRoot must be true"
    if not seccomp and not _map(security, "seccompProfile", here):
        yield f"{here}.seccompProfile.type must be RuntimeDefault or Localhost"
    capabilities = _map(security, "capabilities", here)
    dropped, added = (_list(capabilities, name, f"{here}.capabilities") for name in ("drop", "add"))
    if "ALL" not in dropped:
        yield f"{here}.capabilities.drop must hold ALL"
    if more := [str(c) for c in added if c != "NET_BIND_SERVICE"]:
        yield f"{here}.capabilities.add must not hold {', '.join(more)}"
    if security.get("procMount") not in (None, "", "Default"):
        yield f"{here}.procMount must be Default"
    for port, there in _items(container, "ports", at):
        if port.get("hostPort") not in (None, 0):
            yield f"{there}.hostPort must not be set"
    hooks = _map(container, "lifecycle", at)
    called = [(_map(container, n, at), f"{at}.{n}") for n in PROBES]
    called += [(_map(hooks, n, f"{at}.lifecycle"), f"{at}.lifecycle.{n}") for n in HOOKS]
    for probe, there in called:
        for action in ACTIONS:
            if _map(probe, action, there).get("host"):
                yield f"{there}.{action}.host must not be set"


def secrets(value: Any, at: str = "spec") -> Iterator[tuple[str, str]]:
    """Path and name of every Secret that a pod's spec mentions: volumes, variables, drivers, pulling."""
    if isinstance(value, list):
        for i, item in enumerate(value):
            name = item.get("name") if isinstance(item, dict) else None
            here = f"{at}[{name if isinstance(name, str) else i}]"
            if at.endswith("imagePullSecrets") and isinstance(name, str):
                yield here, name
            if isinstance(item, dict | list):
                yield from secrets(item, here)
    elif isinstance(value, dict):
        for key, inner in value.items():
            here = f"{at}.{key}"
            if "secret" in str(key).lower():
                found = [inner] if isinstance(inner, str) else []
                if isinstance(inner, dict):
                    found = [n for k in ("name", "secretName") if isinstance(n := inner.get(k), str)]
                for name in found:
                    yield here, name
            if isinstance(inner, dict | list):
                yield from secrets(inner, here)


def overlong(template: Mapping[str, Any]) -> Iterator[str]:
    """Variables and arguments that no program could be started with, `$(NAME)` expanded as Kubernetes does.

    Plain values that name each other make GB out of a few kB.
    """
    spec = _map(template, "spec", "")
    for container, at in ((c, at) for kind in CONTAINERS for c, at in _items(spec, kind, "spec")):
        sizes: dict[str, int] = {}
        for variable, there in _items(container, "env", at):
            name, value = variable.get("name"), variable.get("value")
            if isinstance(name, str) and isinstance(value, str):
                sizes[name] = _expanded(value, sizes)
                if len(name) + sizes[name] + 2 > LONGEST:
                    yield f"{there} has {sizes[name]} bytes, of at most {LONGEST}"
        total = sum(sizes.values())
        for kind in ("command", "args"):
            for i, word in enumerate(_list(container, kind, at)):
                size = _expanded(word, sizes) if isinstance(word, str) else 0
                total += size
                if size + 1 > LONGEST:
                    yield f"{at}.{kind}[{i}] has {size} bytes, of at most {LONGEST}"
        if total > MOST_TOGETHER:
            yield f"{at}: variables and arguments have {total} bytes together, of at most {MOST_TOGETHER}"


def _expanded(value: str, sizes: Mapping[str, int]) -> int:
    """Bytes of a value once the variables before it are put in."""
    size = len(value.encode("utf-8", "backslashreplace"))
    for found in _REFERENCE.finditer(value):
        if found[1] in sizes:
            size += sizes[found[1]] - len(found[0])
    return min(size, 10**15)


def tokens(template: Mapping[str, Any]) -> Iterator[str]:
    """Paths of volumes by which a pod could say who it is: tokens and certificates of its service account, and what
    else a later release projects."""
    for volume, at in _items(_map(template, "spec", ""), "volumes", "spec"):
        for source, there in _items(_map(volume, "projected", at), "sources", f"{at}.projected"):
            yield from (f"{there}.{k}" for k, v in source.items() if v is not None and k not in PROJECTED)


def _set(value: Any) -> bool:
    return value is not None and value is not False


def _map(owner: Mapping[str, Any], name: str, at: str) -> Mapping[str, Any]:
    value = owner.get(name)
    if not isinstance(value, dict | None):
        raise MalformedError(f"{at + '.' if at else ''}{name} must be a map")
    return value or {}


def _list(owner: Mapping[str, Any], name: str, at: str) -> list[Any]:
    value = owner.get(name)
    if not isinstance(value, list | None):
        raise MalformedError(f"{at}.{name} must be a list")
    return value or []


def _items(owner: Mapping[str, Any], name: str, at: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """The maps of a list, each with its path: by name where it has one."""
    for i, item in enumerate(_list(owner, name, at)):
        if not isinstance(item, dict):
            raise MalformedError(f"{at}.{name}[{i}] must be a map")
        called = item.get("name")
        yield item, f"{at}.{name}[{called if isinstance(called, str) else i}]"
