#!/bin/sh
# layer.sh PATTERN: install only those packages of the requirements.lock beside this file whose names match (extended
# regular expression). install.sh installs the rest: so a large image has several layers, which a node fetches side by
# side and which stay the same when only others change.
set -eu
here=/opt/viper/share/build
uv=/tmp/tools/bin/uv
[ ! -f /run/secrets/uv.toml ] || export UV_CONFIG_FILE=/run/secrets/uv.toml
[ ! -f /run/secrets/ca.crt ] || export SSL_CERT_FILE=/run/secrets/ca.crt
[ -d /root/.cache/uv ] || export UV_NO_CACHE=1
export UV_HTTP_TIMEOUT=300
sh $here/tools.sh $here/uv.lock /tmp/tools
[ -x /opt/viper/bin/python ] || python3 -m venv --without-pip /opt/viper
awk -v wanted="^($1)==" '/^[a-z0-9]/ { keep = $0 ~ wanted } keep' $here/requirements.lock >/tmp/part.lock
[ -s /tmp/part.lock ] || { echo "no package in requirements.lock matches $1" >&2; exit 1; }
$uv pip install --quiet --require-hashes --no-deps --link-mode copy --python /opt/viper/bin/python -r /tmp/part.lock
cd /opt/viper/lib/python3*/site-packages
# What install.sh removes too; bytecode is its alone.
find . -type d \( -name tests -o -name test -o -name SelfTest -o -name __pycache__ \) -prune -exec rm -rf {} +
find . -name '*.pyi' -delete
rm -rf /tmp/tools /tmp/part.lock
rmdir /root/.cache/uv /root/.cache 2>/dev/null || true
