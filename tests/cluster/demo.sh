#!/usr/bin/env bash
# The small world on a cluster, from nothing to promoted versions: cluster (up.sh), images (images.sh), the chart in the
# namespace viper under the restricted Pod Security level, examples/demo.yaml, and a wait until its loop has ended.
#
#   tests/cluster/demo.sh [FILE]         # FILE: a ViperLoop or ViperIteration instead of examples/demo.yaml
#
# On the cluster of a KUBECONFIG the images have to be in a registry: set VIPER_IMAGES to its prefix (like
# registry.example.org/viper; the tags are those that images.sh prints).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
. "$here/settings.sh"
file=$(realpath "${1:-$root/examples/demo.yaml}")
namespace=viper

step() { say "[$((SECONDS / 60)) min $((SECONDS % 60)) s] $*"; }
step "cluster"
KUBECONFIG=$("$here/up.sh")
export KUBECONFIG
step "images"
names=$("$here/images.sh" operator cpu minio) # not by process substitution, which hides a failure
mapfile -t images <<<"$names"
BIN=$("$here/build.sh" kubectl helm)
export PATH=$BIN:$PATH
values=()
for image in "${images[@]}"; do
  tag=${image##*:} name=${image%:*}
  name=${name##*/}
  values+=(--set-string "images.$name.repository=${VIPER_IMAGES:-viper.local}/$name" --set-string "images.$name.tag=$tag")
done
step "chart"
kubectl get namespace $namespace >/dev/null 2>&1 || kubectl create namespace $namespace >&2
kubectl label --overwrite namespace $namespace pod-security.kubernetes.io/enforce=restricted >&2
helm upgrade --install viper "$root/charts/viper" --namespace $namespace "${values[@]}" --wait --timeout 10m >&2
step "$(basename "$file")"
object=$(kubectl -n $namespace apply -f "$file" -o name)
kubectl -n $namespace get viperiterations -o wide --watch-only >&2 &
watch=$!
trap 'kill $watch 2>/dev/null || true' EXIT
while true; do # True or False: both are an end
  status=$(kubectl -n $namespace get "$object" -o 'jsonpath={.status.conditions[?(@.type=="Succeeded")].status}')
  [ "$status" != True ] && [ "$status" != False ] || break
  kubectl -n $namespace wait "$object" --for=condition=Succeeded --timeout=10s >/dev/null 2>&1 || true
done
kill $watch 2>/dev/null || true
step "ended"
kubectl -n $namespace get viperloops,viperiterations >&2
cat >&2 <<END

Versions, aliases, lineage and scores are in the MLflow registry:

  export KUBECONFIG=$KUBECONFIG
  $BIN/kubectl -n $namespace port-forward service/viper-mlflow 5000     # then http://localhost:5000
END
[ "$status" = True ]
