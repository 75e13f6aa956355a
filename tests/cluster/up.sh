#!/usr/bin/env bash
# A Kubernetes cluster to work with: the one that KUBECONFIG names; else kind's, where kind and docker are there; else one
# node on this machine, bare (root on Linux): etcd, API server, controller-manager, scheduler, kubelet, containerd,
# kube-proxy, CoreDNS. Prints the path of the kubeconfig. Running it again starts only what does not run.
#
# All state is under ${VIPER_CLUSTER:-/var/lib/viper-cluster}; down.sh removes every trace. The storage class viper-local
# (default) has $VIPER_CLUSTER_VOLUMES local volumes, renewed by each run when their claims are gone. NetworkPolicies are
# accepted but not enforced: the network plugin (ptp) has no policies.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/settings.sh"

case $(mode) in
  given)
    kubectl=$(command -v kubectl) || kubectl=$("$here/build.sh" kubectl)/kubectl
    "$kubectl" version >/dev/null || die "the cluster of KUBECONFIG=$KUBECONFIG does not answer" \
      "start it, or unset KUBECONFIG to get a cluster of this machine's own"
    echo "$KUBECONFIG"
    exit 0
    ;;
  kind)
    mkdir -p "$STATE"
    kind get clusters 2>/dev/null | grep -qx viper || kind create cluster --name viper --kubeconfig "$STATE/admin.conf" >&2
    echo kind >"$STATE/mode"
    echo "$STATE/admin.conf"
    exit 0
    ;;
esac

[ "$(uname -s)" = Linux ] && [ "$(id -u)" = 0 ] ||
  die "a cluster of this machine's own needs root on Linux" "use sudo, set KUBECONFIG, or install kind and docker"
for command in ip iptables openssl mount setsid; do
  command -v $command >/dev/null || die "$command is not installed" "Debian, Ubuntu: apt-get install iproute2 iptables openssl util-linux"
done
BIN=$("$here/build.sh" api node)
export PATH=$BIN:$PATH
mkdir -p "$STATE" && cd "$STATE"
exec 9>lock && flock 9
mkdir -p pki logs run cni volumes plugins
chmod 700 pki run
echo bare >mode
[ -f run/sysctls ] || for name in $SYSCTLS; do echo "$name=$(cat "/proc/sys/${name//.//}")"; done >run/sysctls
[ -f run/made ] || for folder in $FOLDERS; do [ -d "$folder" ] || echo "$folder"; done >run/made

certificate() { # certificate NAME SUBJECT SAN
  [ -f "pki/$1.crt" ] && return
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "pki/$1.key" -out "pki/$1.csr" -subj "$2" 2>/dev/null
  printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$3" >"pki/$1.ext"
  openssl x509 -req -in "pki/$1.csr" -CA pki/ca.crt -CAkey pki/ca.key -CAcreateserial -out "pki/$1.crt" -days 3650 \
    -extfile "pki/$1.ext" 2>/dev/null
  rm "pki/$1.csr" "pki/$1.ext"
}

kubeconfig() { # kubeconfig FILE CERTIFICATE
  [ -f "$1" ] && return
  local set="kubectl config --kubeconfig=$1.new"
  $set set-cluster viper --server="https://$IP:6443" --certificate-authority=pki/ca.crt --embed-certs
  $set set-credentials "$2" --client-certificate="pki/$2.crt" --client-key="pki/$2.key" --embed-certs
  $set set-context viper --cluster viper --user "$2"
  $set use-context viper
  mv "$1.new" "$1"
} >/dev/null

if [ ! -f pki/ca.crt ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout pki/ca.key -out pki/ca.new -days 3650 \
    -subj "/CN=viper-cluster" 2>/dev/null
  openssl ecparam -name prime256v1 -genkey -noout -out pki/accounts.key
  mv pki/ca.new pki/ca.crt
fi
certificate kube-apiserver "/CN=kube-apiserver" \
  "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,IP:127.0.0.1,IP:10.96.0.1,IP:$IP"
certificate etcd "/CN=etcd" "IP:127.0.0.1"
certificate admin "/O=system:masters/CN=admin" "DNS:admin"
certificate kube-controller-manager "/CN=system:kube-controller-manager" "DNS:controller-manager"
certificate kube-scheduler "/CN=system:kube-scheduler" "DNS:scheduler"
certificate kube-proxy "/CN=system:kube-proxy" "DNS:proxy"
certificate coredns "/CN=system:coredns" "DNS:coredns"
certificate kubelet "/O=system:nodes/CN=system:node:$NODE" "DNS:$NODE,IP:$IP"
for user in kube-controller-manager kube-scheduler kube-proxy coredns kubelet; do kubeconfig "$user.conf" "$user"; done
kubeconfig admin.conf admin
admin() { kubectl --kubeconfig admin.conf "$@"; }

ip link show "$DEVICE" >/dev/null 2>&1 || ip link add "$DEVICE" type dummy 2>/dev/null || ip link add "$DEVICE" type bridge
ip address replace "$IP/32" dev "$DEVICE"
ip link set "$DEVICE" up
echo 1 >/proc/sys/net/ipv4/ip_forward
rule() { iptables -w -t "$1" -C "${@:3}" -m comment --comment "$MARK" 2>/dev/null || iptables -w -t "$1" "$2" "${@:3}" -m comment --comment "$MARK"; }
rule nat -A POSTROUTING -s "$PODS" ! -d "$PODS" -j MASQUERADE
rule filter -I FORWARD -s "$PODS" -j ACCEPT
rule filter -I FORWARD -d "$PODS" -j ACCEPT

start() { # start NAME FLAG...: a server that runs on when this script ends
  alive "$1" && return
  setsid "$BIN/$1" "${@:2}" >>"logs/$1.log" 2>&1 </dev/null 9>&- &
  echo $! >"run/$1.pid"
}

settings() { # settings FILE [SERVER]: writes its input where it differs; the server that reads it has to start again then
  local content
  content=$(cat)
  [ "$content" != "$(cat "$1" 2>/dev/null)" ] || return 0
  echo "$content" >"$1"
  [ $# -gt 1 ] || return 0
  ! alive "$2" || kill "$(cat "run/$2.pid")"
  while alive "$2"; do sleep 0.1; done
}

until_true() { # until_true SECONDS NAME COMMAND...: waits, unless the server NAME ends
  local tries=$(($1 * 5)) name=$2
  while ! "${@:3}" >/dev/null 2>&1; do
    alive "$name" && [ $((tries--)) -gt 0 ] || { tail -n 20 "logs/$name.log" >&2; die "$name did not get ready" "its log is $STATE/logs/$name.log"; }
    sleep 0.2
  done
}

settings containerd.toml containerd <<END
version = 3
root = "$STATE/containerd"
state = "$RUN/containerd"
[grpc]
address = "$RUN/containerd.sock"
[ttrpc]
address = "$RUN/containerd.sock.ttrpc"
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true # a container must not need CAP_SYS_RESOURCE
netns_mounts_under_state_dir = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["$BIN"]
conf_dir = "$STATE/cni"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "viper.local/pause:1"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = false
Root = "$RUN/runc"
BinaryName = "$BIN/runc"
END
# ptp routes every packet of a pod through the host, so that Services work without bridge netfilter.
settings cni/10-viper.conflist <<END
{"cniVersion": "1.0.0", "name": "viper", "plugins": [{"type": "ptp", "ipMasq": false, "ipam": {"type": "host-local",
 "dataDir": "$STATE/cni/addresses", "ranges": [[{"subnet": "$PODS"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
END
settings kubelet.yaml kubelet <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $IP
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $STATE/pki/ca.crt}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
failSwapOn: false
failCgroupV1: false
containerRuntimeEndpoint: unix://$RUN/containerd.sock
clusterDNS: [$DNS]
clusterDomain: cluster.local
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 99
imageGCLowThresholdPercent: 98
imageMaximumGCAge: 24h # of unused images: what was built earlier
podLogsDir: $STATE/logs/pods
volumePluginDir: $STATE/plugins
tlsCertFile: $STATE/pki/kubelet.crt
tlsPrivateKeyFile: $STATE/pki/kubelet.key
END
settings kube-proxy.yaml kube-proxy <<END
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $STATE/kube-proxy.conf}
mode: iptables
iptables: {localhostNodePorts: false}
clusterCIDR: $PODS
nodePortAddresses: [primary]
hostnameOverride: $NODE
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
END
settings Corefile coredns <<END
. {
  bind $IP
  errors
  kubernetes cluster.local in-addr.arpa {
    kubeconfig $STATE/coredns.conf
  }
  forward . /etc/resolv.conf
  cache 30
}
END

mkdir -p -m 700 "$RUN"
start containerd --config containerd.toml
start etcd --data-dir etcd --listen-client-urls "$ETCD" --advertise-client-urls "$ETCD" --cert-file pki/etcd.crt \
  --key-file pki/etcd.key --client-cert-auth --trusted-ca-file pki/ca.crt --listen-peer-urls http://127.0.0.1:0 --log-level warn
start kube-apiserver --etcd-servers="$ETCD" --etcd-cafile=pki/ca.crt --etcd-certfile=pki/etcd.crt \
  --etcd-keyfile=pki/etcd.key --service-cluster-ip-range="$SERVICES" --bind-address="$IP" \
  --secure-port=6443 --advertise-address="$IP" --tls-cert-file=pki/kube-apiserver.crt \
  --tls-private-key-file=pki/kube-apiserver.key --client-ca-file=pki/ca.crt --authorization-mode=Node,RBAC \
  --enable-admission-plugins=NodeRestriction --allow-privileged \
  --service-account-key-file=pki/accounts.key --service-account-signing-key-file=pki/accounts.key \
  --service-account-issuer=https://kubernetes.default.svc.cluster.local --kubelet-certificate-authority=pki/ca.crt \
  --kubelet-client-certificate=pki/admin.crt --kubelet-client-key=pki/admin.key \
  --kubelet-preferred-address-types=InternalIP --profiling=false
until_true 120 kube-apiserver admin get --raw /readyz
start kube-controller-manager --kubeconfig=kube-controller-manager.conf --service-account-private-key-file=pki/accounts.key \
  --root-ca-file=pki/ca.crt --use-service-account-credentials --leader-elect=false --bind-address=127.0.0.1 --profiling=false \
  --flex-volume-plugin-dir="$STATE/plugins"
start kube-scheduler --kubeconfig=kube-scheduler.conf --leader-elect=false --bind-address=127.0.0.1 --profiling=false
start kube-proxy --config=kube-proxy.yaml
start coredns -conf Corefile

containers() { ctr --address "$RUN/containerd.sock" --namespace k8s.io "$@" 2>>"$STATE/logs/ctr.log"; }
until_true 60 containerd containers version
if ! containers images list -q | grep -qx viper.local/pause:1; then
  python3 "$here/oci.py" viper.local/pause:1 "$BIN/pause" pause.tar
  containers images import pause.tar >/dev/null
  rm pause.tar
fi
start kubelet --kubeconfig=kubelet.conf --config=kubelet.yaml --hostname-override="$NODE" --root-dir="$STATE/kubelet" --node-ip="$IP"

admin apply --server-side -f - >/dev/null <<END
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: system:coredns}, rules: [
 {apiGroups: [""], resources: [services, pods, namespaces], verbs: [list, watch]},
 {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: system:coredns},
 roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:coredns},
 subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: system:coredns}]}
---
{apiVersion: v1, kind: Service, metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns}},
 spec: {clusterIP: $DNS, ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: kube-dns, namespace: kube-system,
  labels: {kubernetes.io/service-name: kube-dns}}, addressType: IPv4, endpoints: [{addresses: [$IP], conditions: {ready: true}}],
 ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]}
---
{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: viper-local, annotations: {storageclass.kubernetes.io/is-default-class: "true"}},
 provisioner: kubernetes.io/no-provisioner, volumeBindingMode: WaitForFirstConsumer, reclaimPolicy: Retain}
END
for name in $(admin get persistentvolumes -o 'jsonpath={range .items[?(@.status.phase=="Released")]}{.metadata.name}{"\n"}{end}' | grep '^viper-local-'); do
  admin delete persistentvolume "$name" >/dev/null
  rm -rf "volumes/$name"
done
for number in $(seq "$VOLUMES"); do
  name=viper-local-$number
  [ -d "volumes/$name" ] || { mkdir "volumes/$name" && chmod 777 "volumes/$name"; }
  # The size is what a claim may ask for; nothing limits what is written.
  echo "{apiVersion: v1, kind: PersistentVolume, metadata: {name: $name}, spec: {storageClassName: viper-local, capacity: {storage: 200Gi},
    accessModes: [ReadWriteOnce, ReadWriteMany], persistentVolumeReclaimPolicy: Retain, local: {path: $STATE/volumes/$name},
    nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [$NODE]}]}]}}}}"
  echo ---
done | admin apply --server-side -f - >/dev/null

until_true 60 kubelet admin get node "$NODE"
admin wait --for=condition=Ready "node/$NODE" --timeout=120s >/dev/null || die "the node did not get ready" "see $STATE/logs"
echo "$STATE/admin.conf"
