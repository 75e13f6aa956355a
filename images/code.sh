#!/bin/sh
# code.sh COMMAND...: make /code, what the project itself adds to /opt/viper, with these commands, and the list of all
# components (CycloneDX).
set -eu
cd /source
/build/tools/bin/python -m hatchling build -t wheel -d /build/wheel >/dev/null
site=$(echo /opt/viper/lib/python3*/site-packages)
mkdir -p "/code$site" /code/opt/viper/bin /code/opt/viper/share
/build/tools/bin/pip install --quiet --no-index --no-deps --no-compile --disable-pip-version-check --root-user-action ignore --target "/code$site" /build/wheel/*.whl
for command; do
  sed '1s|.*|#!/opt/viper/bin/python|' "/code$site/bin/$command" >"/code/opt/viper/bin/$command"
  chmod 755 "/code/opt/viper/bin/$command"
done
rm -rf "/code$site/bin" 
/opt/viper/bin/python -m compileall -q --invalidation-mode unchecked-hash "/code$site"
PYTHONPATH=/code$site /build/tools/bin/cyclonedx-py environment --output-reproducible --of JSON \
  -o /code/opt/viper/share/sbom.cdx.json /opt/viper/bin/python
