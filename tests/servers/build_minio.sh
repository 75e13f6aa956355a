#!/usr/bin/env bash
# Build a MinIO server from Go modules into a cache outside the tree and print the path of the binary.
#
#   tests/servers/build_minio.sh          # prints …/viper/minio-<version>/minio, building it when it is not there
#
# The cache is ${VIPER_CACHE:-$HOME/.cache/viper}, keyed by version. Two builds at once are safe: they take turns on a lock
# where `flock` exists, and the binary appears by rename, so a half-built one is never seen.
set -euo pipefail

VERSION=v0.0.0-20260212201848-7aac2a2c5b7c

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
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

go=$("$here/find_go.sh")
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
