"""A process that logs requests into DynamoDB from several threads and notes what was acknowledged.

Run as ``python aws_log_writer.py SETTINGS FIRST LAST THREADS TOLD``: SETTINGS is JSON, TOLD a file
that gets a line for each acknowledged request, and for each joined outcome.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from logbook import NOON, request

from ml_control.aws.client import Clients
from ml_control.aws.prediction_log import DynamoPredictionLog
from ml_control.ports import Outcome
from ml_control.settings import AwsSettings

NAME = "tumours"


def main(settings, first, last, threads, told):
    """Log each request, one durable call each, and tell the outcome of every third."""
    log = DynamoPredictionLog(Clients(AwsSettings.model_validate_json(settings)))
    with Path(told).open("a", buffering=1) as notes, ThreadPoolExecutor(int(threads)) as pool:

        def one(number):
            log.append([request(NAME, number)])
            notes.write(f"r{number}\n")
            if number % 3 == 0:
                log.tell(NAME, f"r{number}", [Outcome(0, "benign", NOON)])
                notes.write(f"o{number}\n")

        list(pool.map(one, range(int(first), int(last))))
    log.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
