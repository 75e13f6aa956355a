"""`ray start --block` of the fake Ray: the head listens, the others need one that does; both stay until killed."""

from __future__ import annotations

import os
import signal
import socket
import sys

from ray import folder

options = dict(argument.lstrip("-").partition("=")[::2] for argument in sys.argv[1:])
assert {"start", "block", "node-ip-address", "num-gpus", "num-cpus"} <= options.keys()
if "head" in options:
    listening = socket.create_server((options["node-ip-address"], int(options["port"])))
    (folder() / "head").write_text(f"{options['node-ip-address']}:{options['port']}")
else:
    host, _, port = options["address"].partition(":")
    socket.create_connection((host, int(port))).close()
(folder() / f"node-{os.getpid()}").write_text(str(os.getpid()))
signal.pause()
