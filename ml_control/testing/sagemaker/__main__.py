"""``python -m ml_control.testing.sagemaker --port 0 --home DIR --s3-endpoint URL``.

Prints its address as one line and serves until SIGTERM, SIGINT or the end of its standard input
with ``--with-parent``.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from ml_control.testing.sagemaker.fake import ACCOUNT, SPEED, FakeSageMaker


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="ml_control.testing.sagemaker", description=__doc__)
    parser.add_argument("--s3-endpoint", required=True, help="endpoint URL of S3")
    parser.add_argument("--home", type=Path, help="where jobs and servers work")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0: a free one")
    parser.add_argument("--seed", type=int, default=0, help="of faults and drawn parameters")
    parser.add_argument("--speed", type=float, default=SPEED, help="divides AWS's times")
    parser.add_argument("--region", default="us-east-1", help="region of images and ARNs")
    parser.add_argument("--account", default=ACCOUNT, help="account id")
    parser.add_argument(
        "--with-parent", action="store_true", help="end when standard input is closed"
    )
    options = parser.parse_args(arguments)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    fake = FakeSageMaker(
        s3=options.s3_endpoint,
        home=options.home,
        seed=options.seed,
        speed=options.speed,
        region=options.region,
        account=options.account,
        port=options.port,
    )
    with fake:
        print(fake.url, flush=True)
        if options.with_parent:
            threading.Thread(target=_watch, args=(ended,), daemon=True).start()
        ended.wait()
    return 0


def _watch(ended: threading.Event) -> None:
    sys.stdin.read()
    ended.set()


if __name__ == "__main__":
    sys.exit(main())
