#!/bin/sh
# Make $omni an environment over that of $python: it sees the packages there, and has those of omni.lock that it needs in
# another version than the other's $lock. $uv is uv; without it a build of the image gets its own.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${python:-/opt/viper/bin/python} omni=${omni:-/opt/vllm-omni} lock=${lock:-/opt/viper/share/build/requirements.lock}
if [ -z "${uv:-}" ]; then
  [ ! -f /run/secrets/uv.toml ] || export UV_CONFIG_FILE=/run/secrets/uv.toml
  [ ! -f /run/secrets/ca.crt ] || export SSL_CERT_FILE=/run/secrets/ca.crt
  [ -d /root/.cache/uv ] || export UV_NO_CACHE=1
  export UV_HTTP_TIMEOUT=300
  sh /opt/viper/share/build/tools.sh /opt/viper/share/build/uv.lock /tmp/tools
  uv=/tmp/tools/bin/uv
fi
"$python" -m venv --without-pip "$omni"
site=$(echo "$omni"/lib/python3*/site-packages)
"$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$site/beneath.pth"
awk 'FNR == NR { if (/^[^ #]/) there[$1] = 1; next } /^[^ #]/ { wanted = !($1 in there) } wanted' \
  "$lock" "$here/omni.lock" >"$omni/omni.lock"
"$uv" pip install --quiet --no-deps --require-hashes --link-mode "${link_mode:-copy}" --python "$omni/bin/python" -r "$omni/omni.lock"
if [ "$uv" = /tmp/tools/bin/uv ]; then # as install.sh leaves its environment
  find "$site" -type d \( -name tests -o -name test -o -name SelfTest -o -name __pycache__ \) -prune -exec rm -rf {} +
  find "$site" -name '*.pyi' -delete
  "$omni/bin/python" -m compileall -q -j 0 --invalidation-mode unchecked-hash "$site" || true
  rm -rf /tmp/tools
  rmdir /root/.cache/uv /root/.cache 2>/dev/null || true
fi
