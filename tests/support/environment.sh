#!/usr/bin/env bash
# Make an environment that cannot share that of requirements.lock, outside the tree, and print its interpreter.
#
#   tests/support/environment.sh verl|lmms|vllm     # prints …/viper/<name>-<key>/bin/python, installed when it is not there
#
# verl: images/training/cpu.lock; lmms (lmms-eval): images/evaluation/cpu.lock; vllm: all of images/synthesis, with that of
# vLLM-Omni in …/omni. vLLM's classes do not import without the torch they were built for, so that its lock file is taken
# whole, CUDA libraries included. viper itself is not installed: PYTHONPATH names it.
#
# The cache is ${VIPER_CACHE:-$HOME/.cache/viper}, keyed by the packages' versions. Two at once take turns on a lock; an
# environment counts when the stamp, written last, is there. Status 3: the disk has no room for it.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
name=${1:-} options=()
case $name in # gigabytes: what it takes, and 8 that stay free
  verl) what=verl needed=15 locks=("$root/images/training/cpu.lock") options=(--compile-bytecode) ;;
  lmms) what=lmms-eval needed=12 locks=("$root/images/evaluation/cpu.lock") ;; # torch is linked from uv's cache
  vllm) what=vLLM needed=19 locks=("$root"/images/synthesis/{omni,requirements}.lock) ;;
  *)
    echo "$name is no environment: verl, lmms or vllm" >&2
    exit 2
    ;;
esac
lock=${locks[-1]}
cache=${VIPER_CACHE:-$HOME/.cache/viper}
key=$(grep -hv '^ *--hash\|^ *#' "${locks[@]}" | sha256sum | cut -c1-12)
target=$cache/$name-$key
python=$target/bin/python
stamp=$target/.complete

if [ -f "$stamp" ]; then
  echo "$python"
  exit 0
fi
mkdir -p "$cache"
if command -v flock >/dev/null; then
  exec 9>"$cache/.$name.lock"
  flock 9
  if [ -f "$stamp" ]; then # another installation finished while this one waited
    echo "$python"
    exit 0
  fi
fi
free=$(df --output=avail -BG "$cache" | tail -n 1 | tr -dc '0-9')
if [ "$free" -lt "$needed" ]; then
  echo "$what's environment needs $needed GB in $cache, of which $free are free" >&2
  exit 3
fi
rm -rf "$cache/$name"-*/ # of other versions, and what an installation that was killed left behind
uv=$(command -v uv || echo "$root/.uv/bin/uv")
echo "installing $what into $target (minutes, once)" >&2
"$uv" venv --quiet --python '>=3.11,<3.13' "$target" >&2
"$uv" pip sync --quiet "${options[@]}" --python "$python" "$lock" >&2
if [ "$name" = vllm ]; then
  uv=$uv python=$python omni=$target/omni lock=$lock link_mode=hardlink sh "$root/images/synthesis/omni.sh" >&2
fi
touch "$stamp"
echo "$python"
