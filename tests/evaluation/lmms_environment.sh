#!/usr/bin/env bash
# Make an environment with the lmms-eval of images/evaluation/cpu.lock outside the tree and print its interpreter.
#
#   tests/evaluation/lmms_environment.sh     # prints …/viper/lmms-<key>/bin/python, installing it when it is not there
#
# lmms-eval and the stages cannot share one environment: it brings packages that requirements.lock does not have. torch
# and transformers are those of requirements.lock, so that uv links them instead of copying. The cache is
# ${VIPER_CACHE:-$HOME/.cache/viper}, keyed by the packages' versions. Two at once take turns on a lock; an environment
# counts when the stamp, written last, is there.
set -euo pipefail

NEEDED_GB=12 # 4 GB where uv has torch already, and 8 GB that stay free

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
lock=$here/../../images/evaluation/cpu.lock
cache=${VIPER_CACHE:-$HOME/.cache/viper}
key=$(grep -v '^ *--hash\|^ *#' "$lock" | sha256sum | cut -c1-12)
target=$cache/lmms-$key
python=$target/bin/python
stamp=$target/.complete

if [ -f "$stamp" ]; then
  echo "$python"
  exit 0
fi
mkdir -p "$cache"
if command -v flock >/dev/null; then
  exec 9>"$cache/.lmms.lock"
  flock 9
  if [ -f "$stamp" ]; then # another installation finished while this one waited
    echo "$python"
    exit 0
  fi
fi
free=$(df --output=avail -BG "$cache" | tail -n 1 | tr -dc '0-9')
if [ "$free" -lt "$NEEDED_GB" ]; then
  echo "lmms-eval's environment needs $NEEDED_GB GB in $cache, of which $free are free" >&2
  exit 3
fi
rm -rf "$cache"/lmms-*/ # of other versions, and what an installation that was killed left behind
uv=$(command -v uv || echo "$here/../../.uv/bin/uv")
echo "installing lmms-eval into $target (minutes, once)" >&2
"$uv" venv --quiet --python '>=3.11,<3.13' "$target" >&2
"$uv" pip sync --quiet --python "$python" "$lock" >&2
touch "$stamp"
echo "$python"
