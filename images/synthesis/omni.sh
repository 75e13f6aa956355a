#!/bin/sh
# Make $omni an environment over that of $python: it sees the packages there, and has those of omni.lock that it needs in
# another version. $here holds both lock files, $uv is uv.
set -eu
python=${python:-/opt/viper/bin/python} omni=${omni:-/opt/vllm-omni}
"$python" -m venv --without-pip "$omni"
site=$(echo "$omni"/lib/python3*/site-packages)
"$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$site/beneath.pth"
awk 'FNR == NR { if (/^[^ #]/) there[$1] = 1; next } /^[^ #]/ { wanted = !($1 in there) } wanted' \
  "$here/requirements.lock" "$here/omni.lock" >"$omni/omni.lock"
"$uv" pip install --quiet --no-deps --require-hashes --link-mode "${link_mode:-copy}" --python "$omni/bin/python" -r "$omni/omni.lock"
