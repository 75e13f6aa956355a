#!/usr/bin/env bash
# Installs the Debian packages that the tests use and that are missing: building and running the one-node cluster and its
# images, and a browser. Elsewhere, or without root, it only says what is missing.
set -euo pipefail
missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); } # need COMMAND PACKAGE
need gcc gcc
need pkg-config pkg-config
need openssl openssl
need ip iproute2
need iptables iptables
need mount mount
need buildah buildah
need debootstrap debootstrap
need chromium chromium
[ -f /usr/include/seccomp.h ] || missing+=(libseccomp-dev)
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
  echo "missing for the tests of the cluster: ${missing[*]}" >&2
fi
