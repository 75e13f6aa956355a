#!/bin/sh
# A C and C++ compiler and Python's headers, where the base image lacks them: Triton, FlashInfer and torch.compile build
# what they launch at run time. Needs apt; package sources come from the secret sources.list where the base has none.
set -eu
headers() { [ -f "$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ]; }
command -v cc >/dev/null && command -v c++ >/dev/null && headers && exit
[ ! -f /run/secrets/sources.list ] || set -- -o Dir::Etc::SourceList=/run/secrets/sources.list
apt-get "$@" -qq update
wanted="gcc g++ libc6-dev"
headers || wanted="$wanted python3-dev"
DEBIAN_FRONTEND=noninteractive apt-get "$@" -qq install --yes --no-install-recommends $wanted >/dev/null
cc --version && headers
# Lists, logs and what else differs from one build to the next.
rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig /var/log/* /usr/share/doc/* /usr/share/man/* /usr/share/info/* \
  /var/cache/debconf/*-old /var/lib/dpkg/*-old
