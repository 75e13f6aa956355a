#!/bin/sh
# tools.sh LOCK FOLDER: a virtual environment of the packages of a lock file, by pip.
set -eu
[ ! -f /run/secrets/ca.crt ] || export PIP_CERT=/run/secrets/ca.crt
[ ! -f /run/secrets/pip.conf ] || export PIP_CONFIG_FILE=/run/secrets/pip.conf
python3 -m venv "$2"
"$2/bin/pip" install --quiet --no-cache-dir --no-compile --disable-pip-version-check --require-hashes -r "$1"
