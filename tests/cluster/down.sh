#!/usr/bin/env bash
# Remove the cluster that up.sh made and every trace of it: processes, mounts, interfaces, iptables rules, cgroups,
# files, kernel settings. A cluster that KUBECONFIG names is left alone.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/settings.sh"

case $(mode) in
  given) say "the cluster of KUBECONFIG=$KUBECONFIG is not ours to remove"; exit 0 ;;
  kind)
    ! kind_usable || kind delete cluster --name viper
    rm -rf "$STATE"
    exit 0
    ;;
esac
[ -d "$STATE" ] || { say "there is no cluster in $STATE"; exit 0; }
[ "$(id -u)" = 0 ] || die "the cluster was made by root" "use sudo"
case $STATE in /*/*) ;; *) die "$STATE cannot be the folder of a cluster" "set VIPER_CLUSTER to a folder below another one" ;; esac

end() { # end SIGNAL PID...: signals processes and waits for them; what is left after 10 s is killed
  local signal=$1 pid left=50
  shift
  kill "-$signal" "$@" 2>/dev/null || true
  for pid in "$@"; do
    while [ -d "/proc/$pid" ] && ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null; do
      [ $((left--)) -gt 0 ] || { kill -KILL "$pid" 2>/dev/null || true; left=50; }
      sleep 0.2
    done
  done
}

descendants() { # descendants PID...: the processes and all below them
  local pid
  for pid in "$@"; do
    echo "$pid"
    descendants $(cat "/proc/$pid/task"/*/children 2>/dev/null)
  done
}

for name in $SERVERS; do # the kubelet goes before containerd, or it would start containers again
  [ "$name" = containerd ] || ! alive "$name" || end TERM "$(cat "$STATE/run/$name.pid")"
done
shims=$(grep -lazF "$RUN/containerd.sock" /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3 | while read -r pid; do
  [ "$(basename "$(readlink "/proc/$pid/exe")" 2>/dev/null)" = containerd-shim-runc-v2 ] && echo "$pid"
done || true)
[ -z "$shims" ] || end KILL $(descendants $shims)
! alive containerd || end TERM "$(cat "$STATE/run/containerd.pid")"

mounted() { awk -v a="$STATE/" -v b="$RUN/" 'index($2, a) == 1 || index($2, b) == 1 {print $2}' /proc/mounts | sort -r; }
for path in $(mounted); do umount "$path" 2>/dev/null || umount -l "$path"; done

for table in iptables ip6tables; do
  command -v $table >/dev/null || continue
  before=$($table-save 2>/dev/null) || continue
  # kube-proxy's and the kubelet's chains all begin with KUBE-.
  after=$(grep -vE "^:KUBE-|^-A KUBE-|-[jg] KUBE-|--comment \"?$MARK\"?( |$)" <<<"$before" || true)
  [ "$before" = "$after" ] || $table-restore <<<"$after"
done
ip link delete "$DEVICE" 2>/dev/null || true
for pass in 1 2 3; do
  for group in /sys/fs/cgroup/*/kubepods /sys/fs/cgroup/kubepods; do
    [ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.5
  done
done
if [ -f "$STATE/run/sysctls" ]; then
  while IFS='=' read -r name value; do echo "$value" >"/proc/sys/${name//.//}"; done <"$STATE/run/sysctls"
fi
rm -rf /var/lib/cni/results/viper-*
find /var/log/containers -lname "$STATE/*" -delete 2>/dev/null || true
[ ! -f "$STATE/run/made" ] || while read -r folder; do rm -rf "$folder"; done <"$STATE/run/made"
rm -rf "$RUN" "$STATE"
