# Shared by the scripts of this folder; sourced, not run.
STATE=${VIPER_CLUSTER:-/var/lib/viper-cluster}
NODE=viper-node
DEVICE=viper0      # carries the node's address, so that nothing depends on the machine's own
IP=10.200.0.1
PODS=10.244.0.0/24
SERVICES=10.96.0.0/16
DNS=10.96.0.10
ETCD=https://127.0.0.1:12379
RUN=/run/viper-cluster # containerd's sockets and namespaces; a short path
MARK=viper-cluster     # comment of our own iptables rules
VOLUMES=${VIPER_CLUSTER_VOLUMES:-24}
# What kubelet and kube-proxy change and do not put back.
SYSCTLS="vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys
kernel.keys.root_maxbytes net.ipv4.ip_forward net.ipv4.conf.all.route_localnet"
# What kubelet, containerd and the network plugins make outside STATE and RUN, whatever their flags say.
FOLDERS="/var/lib/cni /var/lib/kubelet /var/log/containers /run/containerd"
SERVERS="kube-proxy coredns kubelet kube-scheduler kube-controller-manager kube-apiserver etcd containerd"

say() { echo "$*" >&2; }
die() { say "error: $1"; [ $# -lt 2 ] || say "  → $2"; exit 1; }

alive() { # alive NAME: does the server that we started under this name run?
  local pid
  pid=$(cat "$STATE/run/$1.pid" 2>/dev/null) && [ "$(basename "$(readlink "/proc/$pid/exe")" 2>/dev/null)" = "$1" ]
}

kind_usable() { command -v kind >/dev/null && docker info >/dev/null 2>&1; }

mode() { # given (KUBECONFIG names another cluster), kind or bare
  if [ -n "${KUBECONFIG:-}" ] && [ "$KUBECONFIG" != "$STATE/admin.conf" ]; then
    echo given
  elif [ -f "$STATE/mode" ]; then
    cat "$STATE/mode"
  elif kind_usable; then
    echo kind
  else
    echo bare
  fi
}
