#!/usr/bin/env bash
# Build Kubernetes and the tools around it from Go modules into a cache outside the tree; print the folder of the binaries.
#
#   tests/cluster/build.sh               # everything
#   tests/cluster/build.sh api chart     # only these groups or binaries
#   tests/cluster/build.sh --folder      # print the folder, build nothing
#
# Groups: api (a control plane without a node, fake nodes), chart (helm and its checks), node (what a real node needs
# besides). Only by name: jobset (the controller that benchmarks/operator.py measures beside ours, and its CRD); kuberay
# (nothing is built: the definition of RayJob, as rayjobs.yaml).
# The cache is ${VIPER_CACHE:-$HOME/.cache/viper}/kubernetes-<hash of the versions below>. Binaries that are there are
# left alone; each appears by rename, so a half-built one is never seen; two builds at once take turns.
# Modules are checked against the public checksum database by Go itself; with fixed versions the build list is fixed too.
set -euo pipefail

VERSIONS="
kubernetes v1.36.3
etcd v3.6.16
kwok v0.8.0
helm v3.22.0
kubeconform v0.8.0
helm-unittest v1.1.2
containerd v2.2.9
runc v1.3.6
cni v1.9.1
coredns v1.14.7
"
KUBERAY=v1.5.1 # of the definition only
JOBSET=jobset-v0.10.1 # its binary's name; only measured against, so that it is no part of the hash
API="etcd kube-apiserver kube-controller-manager kubectl kwok kube-scheduler"
CHART="helm kubeconform helm-unittest"
NODE="kubelet kube-proxy containerd containerd-shim-runc-v2 ctr runc pause ptp host-local loopback coredns"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${VIPER_CACHE:-$HOME/.cache/viper}
home=$cache/kubernetes-$(sha256sum <<<"$VERSIONS" | cut -c1-12)
bin=$home/bin

say() { echo "$*" >&2; }
version() { [ "$1" = "$JOBSET" ] && echo "${1#jobset-}" || awk -v name="$1" '$1 == name {print $2}' <<<"$VERSIONS"; }

module() { # module BINARY: prints "<name of its version> <module or package>"
  case $1 in
    kubeconform) echo "kubeconform github.com/yannh/kubeconform/cmd/kubeconform" ;;
    kube* ) echo "kubernetes k8s.io/kubernetes/cmd/$1" ;;
    etcd) echo "etcd go.etcd.io/etcd/server/v3" ;;
    kwok) echo "kwok sigs.k8s.io/kwok/cmd/kwok" ;;
    "$JOBSET") echo "$JOBSET sigs.k8s.io/jobset" ;;
    helm) echo "helm helm.sh/helm/v3/cmd/helm" ;;
    helm-unittest) echo "helm-unittest github.com/helm-unittest/helm-unittest/cmd/helm-unittest" ;;
    containerd | containerd-shim-runc-v2 | ctr) echo "containerd github.com/containerd/containerd/v2/cmd/$1" ;;
    runc) echo "runc github.com/opencontainers/runc" ;;
    loopback) echo "cni github.com/containernetworking/plugins/plugins/main/loopback" ;;
    host-local) echo "cni github.com/containernetworking/plugins/plugins/ipam/host-local" ;;
    ptp) echo "cni github.com/containernetworking/plugins/plugins/main/ptp" ;;
    pause) echo "kubernetes build/pause/linux/pause.c" ;;
    coredns) echo "coredns github.com/coredns/coredns" ;;
    *) return 1 ;;
  esac
}

prepare_kubernetes() { # a module that requires k8s.io/kubernetes; its staging modules are required at v0.0.0 there
  local version=$1 mod name edits=()
  mod=$("$go" mod download -json "k8s.io/kubernetes@$version" | sed -n 's/^\t"GoMod": "\(.*\)",\?$/\1/p')
  while read -r name; do edits+=(-replace "$name=$name@v0${version#v1}"); done < \
    <(awk '$1 ~ /^k8s\.io\// && $2 == "v0.0.0" {print $1}' "$mod" | sort -u)
  "$go" mod edit "${edits[@]}" -require "k8s.io/kubernetes@$version"
}

jobset_crd() { # the CustomResourceDefinition lies beside the binary
  local crd
  crd=$("$go" list -mod=mod -m -f '{{.Dir}}' sigs.k8s.io/jobset)/config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml
  cp "$crd" "$bin/$JOBSET.yaml"
}

kuberay_crd() { # the module is large, its definition is what counts
  local version=$KUBERAY target=$cache/kuberay-$KUBERAY go dir
  if [ ! -f "$target/rayjobs.yaml" ]; then
    go=$("$here/../servers/find_go.sh")
    dir=$(GOTOOLCHAIN=local GOFLAGS="${GOFLAGS:-} -modcacherw" "$go" mod download -json "github.com/ray-project/kuberay/ray-operator@$version" |
      sed -n 's/^\t"Dir": "\(.*\)",\?$/\1/p')
    mkdir -p "$target"
    cp "$dir/config/crd/bases/ray.io_rayjobs.yaml" "$target/.rayjobs.$$"
    mv "$target/.rayjobs.$$" "$target/rayjobs.yaml"
  fi
  echo "$target"
}

build() { # build BINARY
  local binary=$1 name package version work tags="" cgo=0 flags="-s -w" v=k8s.io/component-base/version started=$SECONDS
  read -r name package < <(module "$binary")
  version=$(version "$name")
  work=$home/modules/$name
  mkdir -p "$work" "$bin"
  ( # one build per module at a time
    if command -v flock >/dev/null; then
      exec 9>"$work.lock"
      flock 9
    fi
    [ ! -x "$bin/$binary" ] || exit 0 # another build finished while this one waited
    rm -f "$bin/.$binary".* # of builds that were killed
    say "building $binary $version"
    cd "$work"
    if [ ! -f ready ]; then
      rm -f go.mod go.sum
      "$go" mod init "viper.test/$name" 2>/dev/null
      if [ "$name" = kubernetes ]; then prepare_kubernetes "$version"; else "$go" get -tool "$package@$version" 2>/dev/null; fi
      # helm-unittest replaces this module in its own go.mod, which counts only there.
      [ "$name" != helm-unittest ] || "$go" mod edit -replace github.com/vmware-labs/yaml-jsonpath=github.com/helm-unittest/yaml-jsonpath@v0.4.0
      touch ready
    fi
    case $binary in
      kubeconform) flags="$flags -X main.version=$version" ;;
      kube*) flags="$flags -X $v.gitVersion=$version -X $v.gitMajor=1 -X $v.gitMinor=$(cut -d. -f2 <<<"$version")" ;;
      runc) cgo=1 tags=seccomp flags="$flags -X main.version=${version#v}" ;;
      containerd | ctr) flags="$flags -X github.com/containerd/containerd/v2/version.Version=$version" ;;
      helm) flags="$flags -X helm.sh/helm/v3/internal/version.version=$version" ;;
    esac
    if [ "$binary" = pause ]; then
      gcc -Os -Wall -static -DVERSION="$version" -o "$bin/.$binary.$$" "$("$go" list -mod=mod -m -f '{{.Dir}}' k8s.io/kubernetes)/$package"
    else
      CGO_ENABLED=$cgo "$go" build -mod=mod -trimpath -tags "$tags" -ldflags "$flags" -o "$bin/.$binary.$$" "$package" \
        2> >(grep -v '^go: downloading' >&2)
    fi
    [ "$binary" != "$JOBSET" ] || jobset_crd
    mv -f "$bin/.$binary.$$" "$bin/$binary"
    say "  $binary took $((SECONDS - started)) s"
  )
}

wanted=()
for word in "${@:-all}"; do
  case $word in
    --folder) echo "$bin"; exit 0 ;;
    kuberay) kuberay_crd; exit 0 ;;
    all) wanted+=($API $CHART $NODE) ;;
    api) wanted+=($API) ;;
    chart) wanted+=($CHART) ;;
    node) wanted+=($NODE) ;;
    jobset) wanted+=("$JOBSET") ;;
    *) module "$word" >/dev/null || { say "error: $word is no binary or group; see the head of $0"; exit 2; }; wanted+=("$word") ;;
  esac
done
missing=()
for binary in "${wanted[@]}"; do [ -x "$bin/$binary" ] || missing+=("$binary"); done
if [ ${#missing[@]} -gt 0 ]; then
  case " ${missing[*]} " in
    *" runc "*)
      { command -v gcc && pkg-config --exists libseccomp; } >/dev/null 2>&1 || {
        say "error: runc needs a C compiler, pkg-config and the headers of libseccomp"
        say "  Debian, Ubuntu: apt-get install gcc pkg-config libseccomp-dev"
        exit 1
      } ;;
  esac
  go=$("$here/../servers/find_go.sh")
  export GOTOOLCHAIN=local GOFLAGS="${GOFLAGS:-} -modcacherw"
  for binary in "${missing[@]}"; do build "$binary"; done
fi
echo "$bin"
