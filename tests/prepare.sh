#!/usr/bin/env bash
# Make what the tests run against and the cache does not have yet. `make test` starts this beside the tests, which begin
# with those that need none of it (tests/conftest.py). A test that comes first waits for its part, or makes it itself; so
# nothing that fails here is lost: the test that needs it says it.
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
{
  for name in lmms verl vllm; do "$here/support/environment.sh" "$name"; done
  "$here/cluster/images.sh" --no-import operator cpu
} &
"$here/servers/build_minio.sh"
"$here/cluster/build.sh"
wait
