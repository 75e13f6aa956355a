#!/bin/sh
# Make /opt/viper a virtual environment of exactly the requirements.lock beside this file, less what the other script
# here takes away again.
set -eu
here=/opt/viper/share/build
uv=/tmp/tools/bin/uv
[ ! -f /run/secrets/uv.toml ] || export UV_CONFIG_FILE=/run/secrets/uv.toml
[ ! -f /run/secrets/ca.crt ] || export SSL_CERT_FILE=/run/secrets/ca.crt
[ -d /root/.cache/uv ] || export UV_NO_CACHE=1 # a cache that is mounted spares downloads
export UV_HTTP_TIMEOUT=300
# Checked by content hash and never again: nothing here changes, and file times do not survive a reproducible build.
compile="/opt/viper/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash"
sh $here/tools.sh $here/uv.lock /tmp/tools
python3 -m venv --without-pip /opt/viper
$uv pip sync --quiet --require-hashes --link-mode copy --python /opt/viper/bin/python $here/requirements.lock
cd /opt/viper/lib/python3*/site-packages
find . -type d \( -name tests -o -name test -o -name SelfTest -o -name __pycache__ \) -prune -exec rm -rf {} +
find . -name '*.pyi' -delete
for script in $here/*.sh; do case $script in */install.sh | */tools.sh) ;; *) . "$script" ;; esac; done
$compile . || true # templates that are no Python are among the files
rm -rf /tmp/tools
rmdir /root/.cache/uv /root/.cache 2>/dev/null || true
