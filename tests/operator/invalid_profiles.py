"""What may not stand in a profile; part of the table of `invalid_manifests`."""

from __future__ import annotations

from typing import Any

from manifest_cases import AT_LEAST, AT_MOST, Case


def _quantity(name: str, field: str, value: str) -> Case:
    path = f"spec profile defaults {field}"
    says = "[KMGTPE]i", "such as 500m, 1.5 or 64Gi"
    return Case(name, {path: value}, path.replace(" ", "."), (), server=says[:1], here=says[1:])


def _resources(name: str, field: str, value: Any, *says: str, at: str = "", hidden: str = "") -> Case:
    path = f"spec.profile.defaults.{at or field}"
    return Case(name, {f"spec profile defaults {field}": value}, path, says, hidden=hidden)


PROFILE = [
    Case("an unknown device", {"spec profile device": "gpu"}, "spec.profile.device", ("cpu, cuda or cuda:",)),
    Case("no number of a device", {"spec profile device": "cuda:1٣"}, "spec.profile.device", ("cpu, cuda or cuda:",)),
    Case(
        "a device of a thousand", {"spec profile device": "cuda:1000"}, "spec.profile.device", ("cpu, cuda or cuda:",)
    ),
    Case(
        "a profile and a reference",
        {"spec profile": {"device": "cpu"}, "spec profileRef": "a100"},
        "spec.profileRef",
        ("either profile or profileRef", "remove one"),
    ),
    Case("a reference that is no name", {"spec profileRef": "A 100"}, "spec.profileRef", ("lower-case letters",)),
    Case(
        "an unknown stage",
        {"spec profile stages": {"train": {}}},
        "spec.profile.stages",
        ("unknown stages", "train-captions"),
    ),
    Case(
        "training in shards",
        {"spec profile stages": {"train-captions": {"shards": 2}}},
        "spec.profile.stages",
        ("shards must be 1", "only synthesize-captions"),
    ),
    Case(
        "everything in shards",
        {"spec profile defaults shards": 4},
        "spec.profile.defaults",
        ("defaults.shards must be 1", "synthesize-captions"),
    ),
    Case(
        "GPUs of the defaults, named again by a stage",
        {
            "spec profile defaults gpus": 1,
            "spec profile stages": {"evaluate": {"resources": {"limits": {"nvidia.com/gpu": 1}}}},
        },
        "spec.profile.stages",
        ("together with defaults", "remove one of the two"),
    ),
    Case(
        "evaluation on several nodes",
        {"spec profile": {"defaults": {"workClaim": "work"}, "stages": {"evaluate": {"nodes": 2}}}},
        "spec.profile.stages",
        ("nodes must be 1", "only train-captions"),
    ),
    Case(
        "everything on several nodes",
        {"spec profile defaults nodes": 2},
        "spec.profile.defaults",
        ("defaults.nodes must be 1", "train-captions"),
    ),
    Case(
        "nodes that share nothing",
        {"spec engines trainer": "verl", "spec profile": {"stages": {"train-captions": {"nodes": 2}}}},
        "spec.profile.stages",
        ("workClaim must name a ReadWriteMany claim",),
    ),
    Case(
        "nodes for a trainer that works on one",
        {"spec profile": {"stages": {"train-captions": {"nodes": 2, "workClaim": "work"}}}},
        "spec.profile",
        ("nodes must be 1", "the trainer trl works on one node", "set engines.trainer: verl"),
    ),
    _resources("no nodes", "nodes", 0, AT_LEAST.format(1)),
    _resources("a claim that is no name", "workClaim", "My Claim", "lower-case letters"),
    _resources("no shards", "shards", 0, AT_LEAST.format(1)),
    _resources("too many retries", "retries", 21, AT_MOST.format(20)),
    _resources("a deadline of no time", "deadlineSeconds", 0, AT_LEAST.format(1)),
    _resources("a deadline with a unit", "deadlineSeconds", "2h", "integer"),
    _resources("a negative pause", "backoffSeconds", -1, AT_LEAST.format(0)),
    _resources("negative GPUs", "gpus", -1, AT_LEAST.format(0)),
    Case(
        "GPUs named twice",
        {"spec profile defaults": {"gpus": 1, "resources": {"limits": {"nvidia.com/gpu": 1}}}},
        "spec.profile.defaults",
        ("gpus sets nvidia.com/gpu", "remove one of the two"),
    ),
    _resources("an image with a space", "image", "a b", "without spaces"),
    _resources("an unknown pull policy", "imagePullPolicy", "Sometimes", "Always", "IfNotPresent"),
    _quantity("a memory of letters", "resources limits memory", "lots"),
    _quantity("a negative request", "resources requests cpu", "-1"),
    _quantity("a request beyond all floats", "resources requests memory", "1e400"),
    _quantity("a GPU memory that no memory can write out", "gpuMemory", "9e99999999"),
    _resources(
        "a request above its limit",
        "resources",
        {"requests": {"memory": "2Gi"}, "limits": {"memory": "1000M"}},
        "lower the request",
        at="resources.requests",
    ),
    _quantity("a shared memory of letters", "shmSize", "big"),
    _resources(
        "a variable from something else than a secret",
        "env",
        [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}, "configMapKeyRef": {}}}],
        "unknown field",
        at="env[0].valueFrom.configMapKeyRef",
    ),
    _resources(
        "a value beside the secret that it comes from",
        "env",
        [{"name": "A", "value": "x", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        "remove one of them",
        at="env[0].value",
    ),
    _resources(
        "a secret that is no name",
        "env",
        [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "My Secret", "key": "k"}}}],
        "lower-case letters",
        at="env[0].valueFrom.secretKeyRef.name",
    ),
    _resources(
        "credentials in the environment",
        "env",
        [{"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}],
        "remove it",
        "operator's secret",
        at="env[0].name",
    ),
    _resources("a variable twice", "env", [{"name": "A"}, {"name": "A"}], "env names", "twice; keep one", at="env"),
    _resources("a variable that is no name", "env", [{"name": "1A"}], "not beginning with a digit", at="env[0].name"),
    Case(
        "a pull secret as a string",
        {"spec profile defaults imagePullSecrets": ["s"]},
        "spec.profile.defaults.imagePullSecrets[0]",
        (),
        server=("object",),
        here=("dict",),
    ),
    _resources(
        "a toleration of all with a value",
        "tolerations",
        [{"operator": "Exists", "value": "x"}],
        "remove value",
        at="tolerations[0].value",
    ),
    _resources(
        "a toleration without a key", "tolerations", [{"effect": "NoSchedule"}], "set key", at="tolerations[0].operator"
    ),
    _resources(
        "a toleration of an unknown effect",
        "tolerations",
        [{"key": "a", "effect": "Never"}],
        "NoSchedule",
        "NoExecute",
        at="tolerations[0].effect",
    ),
    _resources(
        "a time for no eviction",
        "tolerations",
        [{"key": "a", "tolerationSeconds": 3}],
        "set effect: NoExecute",
        at="tolerations[0].tolerationSeconds",
    ),
    _resources("an unknown affinity", "affinity", {"gpuAffinity": {}}, "unknown field", at="affinity.gpuAffinity"),
    _resources(
        "spreading over nothing",
        "topologySpreadConstraints",
        [{"maxSkew": 1}],
        "equired",
        at="topologySpreadConstraints[0].topologyKey",
    ),
    _resources("a cache without a claim", "modelCache", {"mountPath": "/m"}, "equired", at="modelCache.claimName"),
    _resources(
        "a cache at a relative path",
        "modelCache",
        {"claimName": "c", "mountPath": "m"},
        "an absolute path",
        at="modelCache.mountPath",
    ),
    _resources(
        "a pod template with containers at its root",
        "podTemplate",
        {"containers": []},
        "unknown field",
        at="podTemplate.containers",
    ),
    _resources("a negative time to live", "ttlSecondsAfterFinished", -1, AT_LEAST.format(0)),
    *(
        _resources(
            f"an image {why}", "image", image, "must be an image reference", "imagePullSecrets", hidden="hunter2"
        )
        for why, image in {
            "with a scheme": "https://registry.example.org/viper:1",
            "with a password": "ana:hunter2@registry.example.org/viper:1",
            "in capitals": "registry.example.org/Viper:1",
            "with a quote": 'viper"',
            "with a line break": "viper\n",
        }.items()
    ),
    *(
        _resources(f"GPUs that are {name}", "gpuResourceName", name, "extended resource", "such as nvidia.com/gpu")
        for name in (
            "cpu",
            "memory",
            "nvidia",
            "gpu",
            "hugepages-2Mi",
            "kubernetes.io/gpu",
            "node.kubernetes.io/gpu",
            "requests.nvidia.com/gpu",
            "nvidia.com/gpu/0",
        )
    ),
    *(
        Case(
            f"{field.rpartition('.')[2]} {why}",
            {f"spec profile defaults {field.replace('.', ' ')}": value},
            f"spec.profile.defaults.{field}",
            ("at least 1Mi", "write 500M, 64Gi"),
        )
        for field in (
            "gpuMemory",
            "shmSize",
            "workSize",
            "resources.limits.memory",
            "resources.limits.ephemeral-storage",
        )
        for why, value in {
            "in thousandths": "100m",
            "in thousandths of plenty": "64000000000000m",
            "of some bytes": 64,
            "of kilobytes": "512k",
            "by a negative exponent": "1e-3",
            "of nothing": "0",
        }.items()
    ),
    _resources(
        "a reserved memory in thousandths",
        "resources",
        {"requests": {"memory": "500m"}},
        "m means thousandths",
        at="resources.requests.memory",
    ),
    _resources(
        "a thousandth of a core",
        "resources",
        {"limits": {"cpu": "1m"}},
        "limits.cpu",
        "at least 10m",
        at="resources",
    ),
    *(
        _resources(
            f"{field} of {name}", "resources", {field: {name: 1}}, "no resource of a container", at=f"resources.{field}"
        )
        for field in ("requests", "limits")
        for name in ("gpu", "storage", "pods", "nvidia", "kubernetes.io/gpu", "Memory")
    ),
    _resources(
        "half a device",
        "resources",
        {"limits": {"nvidia.com/gpu": "500m"}},
        "must be a whole number",
        at="resources.limits",
    ),
    _resources(
        "a device that is only reserved",
        "resources",
        {"requests": {"nvidia.com/gpu": 1}},
        "the same in requests and limits",
        at="resources.requests",
    ),
    _resources(
        "fewer devices reserved than granted",
        "resources",
        {"requests": {"amd.com/gpu": 1}, "limits": {"amd.com/gpu": 2}},
        "the same in requests and limits",
        at="resources.requests",
    ),
    *(
        _resources(f"a node's label {why}", "nodeSelector", labels, words)
        for why, labels, words in (
            ("with a blank", {"my gpu": "a100"}, "letters, digits, '-', '_' and '.'"),
            ("with a slash in its value", {"gpu": "nvidia/a100"}, "at most 63 letters, digits"),
            ("with a hyphen at its value's end", {"gpu": "a100-"}, "at most 63 letters, digits"),
        )
    ),
    _resources(
        "a taint with a blank",
        "tolerations",
        [{"key": "my gpu", "operator": "Exists"}],
        "letters",
        at="tolerations[0].key",
    ),
    _resources(
        "a taint's value with a slash",
        "tolerations",
        [{"key": "gpu", "value": "a/b"}],
        "at most 63 letters",
        at="tolerations[0].value",
    ),
    *(
        _resources(f"{field} with an empty part", field, name, "between two dots")
        for field, name in (("workClaim", "a..b"), ("priorityClassName", "a.-b"), ("runtimeClassName", "a-.b"))
    ),
    _resources(
        "a variable with a NUL", "env", [{"name": "A", "value": "a\0b"}], "control characters", at="env[0].value"
    ),
    *(
        _resources(
            f"a cache at {path}",
            "modelCache",
            {"claimName": "c", "mountPath": path},
            "/models",
            at="modelCache.mountPath",
        )
        for path in ("//", "/work", "/tmp/", "/dev/shm")
    ),
    *(
        _resources(
            f"a cache by the way of {path}",
            "modelCache",
            {"claimName": "c", "mountPath": path},
            "write the path itself",
            at="modelCache.mountPath",
        )
        for path in ("/models/../work", "/tmp/.", "/./models")
    ),
    Case(
        "huge pages of no size",
        {"spec profile defaults resources limits": {"hugepages-big": "1Gi"}},
        "spec.profile.defaults.resources",
        ("is no resource of a container",),
    ),
    *(
        Case(
            f"a node label called {key}",
            {"spec profile defaults nodeSelector": {key: "a"}},
            "spec.profile.defaults.nodeSelector",
            ("must be letters, digits",),
        )
        for key in ("/pool", "pool/", "-pool", "pool.", "my pool")
    ),
    _resources(
        "a cache at a line break",
        "modelCache",
        {"claimName": "c", "mountPath": "/models\n"},
        "must not hold line breaks",
        at="modelCache.mountPath",
    ),
    *(
        Case(
            f"more shards than {why}",
            {"spec images": images, "spec profile stages": {"synthesize-captions": {"shards": shards}}},
            "spec.profile.stages",
            ("more shards than", "raise images.limit"),
        )
        for why, images, shards in (
            ("images", {"uri": "file:///photos", "limit": 24}, 1024),
            ("drawings", {"uri": "smallworld:scenes?count=24"}, 25),
            ("drawings that are used", {"uri": "smallworld:scenes?seed=3&count=24", "limit": 2}, 3),
        )
    ),
    Case(
        "more shards than edits",
        {
            "spec images limit": 3,
            "spec recipe operations editsPerImage": 2,
            "spec profile stages": {"validate-operations": {"shards": 7}},
        },
        "spec.profile.stages",
        ("more shards than", "raise images.limit"),
    ),
]
