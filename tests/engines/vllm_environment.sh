#!/usr/bin/env bash
# Make the environments of images/synthesis outside the tree and print the interpreter of the first.
#
#   tests/engines/vllm_environment.sh     # prints …/viper/vllm-<key>/bin/python, installing it when it is not there
#
# In …/viper/vllm-<key>/omni is that of vLLM-Omni. The whole lock files, CUDA libraries included: vLLM's classes do not import without the torch it was built for, and so
# it is shown that the image's lock file can be installed. The cache is ${VIPER_CACHE:-$HOME/.cache/viper}, keyed by the
# packages' versions. Two at once take turns on a lock; an environment counts when the stamp, written last, is there.
set -euo pipefail

NEEDED_GB=19 # 11 GB, and 8 GB that stay free

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
synthesis=$(cd "$here/../../images/synthesis" && pwd)
cache=${VIPER_CACHE:-$HOME/.cache/viper}
key=$(grep -hv '^ *--hash\|^ *#' "$synthesis"/*.lock | sha256sum | cut -c1-12)
target=$cache/vllm-$key
python=$target/bin/python
stamp=$target/.complete

if [ -f "$stamp" ]; then
  echo "$python"
  exit 0
fi
mkdir -p "$cache"
if command -v flock >/dev/null; then
  exec 9>"$cache/.vllm.lock"
  flock 9
  if [ -f "$stamp" ]; then # another installation finished while this one waited
    echo "$python"
    exit 0
  fi
fi
free=$(df --output=avail -BG "$cache" | tail -n 1 | tr -dc '0-9')
if [ "$free" -lt "$NEEDED_GB" ]; then
  echo "vLLM's environment needs $NEEDED_GB GB in $cache, of which $free are free" >&2
  exit 3
fi
rm -rf "$cache"/vllm-*/ # of other versions, and what an installation that was killed left behind
uv=$(command -v uv || echo "$here/../../.uv/bin/uv")
echo "installing vLLM into $target (minutes, once)" >&2
"$uv" venv --quiet --python '>=3.11,<3.13' "$target" >&2
"$uv" pip sync --quiet --python "$python" "$synthesis/requirements.lock" >&2
uv=$uv python=$python omni=$target/omni lock=$synthesis/requirements.lock link_mode=hardlink sh "$synthesis/omni.sh" >&2
touch "$stamp"
echo "$python"
