"""A moto server, which checks SigV4 and answers like AWS, on a loopback port of the system's choice.

The first line on standard output is JSON: {"endpoint"}. It ends when its standard input does, so that it never outlives
the test that started it. moto does not enforce session policies: use it for the wire, not for what a session may do.
"""

from __future__ import annotations

import json
import sys

from moto.server import ThreadedMotoServer


def main() -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    print(json.dumps({"endpoint": f"http://{host}:{port}"}), flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()
