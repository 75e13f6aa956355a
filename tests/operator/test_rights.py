"""The operator with the rights that the chart gives it, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fakes.cluster import Cluster

pytestmark = [pytest.mark.kube, pytest.mark.slow]

TEMPLATE = Path(__file__).parents[2] / "charts/viper/templates/operator.yaml"


def rules() -> list[dict[str, object]]:
    """The rules of the chart's Role, which no value changes."""
    role = TEMPLATE.read_text().partition("\nkind: Role\n")[2].partition("\n---\n")[0]
    found: list[dict[str, object]] = yaml.safe_load("rules:" + role.partition("\nrules:")[2])["rules"]
    return found


def test_an_iteration_runs_to_its_end_with_the_charts_role(cluster: Cluster, tmp_path: Path) -> None:
    space = cluster.namespace
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{space}"
    accounts = f"/api/v1/namespaces/{space}/serviceaccounts"
    cluster.api.call("POST", accounts, {"metadata": {"name": "operator"}})
    cluster.api.call("POST", f"{rbac}/roles", {"metadata": {"name": "operator"}, "rules": rules()})
    subject = {"kind": "ServiceAccount", "name": "operator", "namespace": space}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "operator"}
    binding = {"metadata": {"name": "operator"}, "roleRef": role, "subjects": [subject]}
    cluster.api.call("POST", f"{rbac}/rolebindings", binding)
    token = cluster.api.call("POST", f"{accounts}/operator/token", {"spec": {}})["status"]["token"]
    content = yaml.safe_load(cluster.kubeconfig.read_text())
    content["users"][0]["user"] = {"token": token}
    cluster.kubeconfig = tmp_path / "operator.conf"
    cluster.kubeconfig.write_text(yaml.safe_dump(content))
    cluster.start(VIPER_LEASE="viper-operator")
    cluster.iteration()
    assert cluster.finished()["outcome"] == "Promoted"
    assert "Promoted" in [reason for reason, _ in cluster.events()]
