"""Where the prediction log is on each platform, with any number of clients and processes."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from emulators import fresh_settings

from ml_control.aws.client import Clients
from ml_control.aws.prediction_log import DynamoPredictionLog
from ml_control.aws.schema import EXPIRES, KEYS
from ml_control.local.prediction_log import SqlitePredictionLog
from ml_control.ports import PredictionLog
from ml_control.settings import AwsSettings


class LocalLogs:
    """A file."""

    rounds = 60  # of a test that writes much

    def __init__(self, folder: Path) -> None:
        self.path = folder / "predictions.db"
        self.clients: list[PredictionLog] = []

    def client(self, **options: float) -> PredictionLog:
        """A client of its own."""
        self.clients.append(SqlitePredictionLog(self.path, **options))
        return self.clients[-1]

    def end(self) -> None:
        """Close all clients."""
        for client in self.clients:
            client.close()


class SharedClients(Clients):
    """Clients of a table of their own, over connections that several tests use one after another:
    to make a boto3 session takes longer than most of them.
    """

    def __init__(self, settings: AwsSettings, place: int) -> None:
        super().__init__(settings)
        self._shared = _shared(settings.endpoint_urls["dynamodb"], place)

    def client(self, service: str, **options: float) -> Any:
        """The shared one."""
        return self._shared.client(service, **options)


@cache
def _shared(url: str, place: int) -> Clients:
    return Clients(fresh_settings(url))


class DynamoLogs:
    """The table of an account that has no other, on moto; ``dynamodb`` is a client of it."""

    rounds = 12

    def __init__(self, url: str | None = None) -> None:
        """``url``: where DynamoDB answers; this process's moto server."""
        self.settings = fresh_settings(url)
        self.clients: list[PredictionLog] = []
        self.dynamodb = SharedClients(self.settings, 0).client("dynamodb")
        self.table = self.settings.table("control-ledger")
        names = KEYS["control-ledger"]
        self.dynamodb.create_table(
            TableName=self.table,
            KeySchema=[
                {"AttributeName": name, "KeyType": kind}
                for name, kind in zip(names, ("HASH", "RANGE"), strict=True)
            ],
            AttributeDefinitions=[{"AttributeName": n, "AttributeType": "S"} for n in names],
            BillingMode="PAY_PER_REQUEST",
        )
        self.dynamodb.update_time_to_live(
            TableName=self.table,
            TimeToLiveSpecification={"Enabled": True, "AttributeName": EXPIRES},
        )

    def client(self, **options: float) -> DynamoPredictionLog:
        """A client of its own, with connections of its own."""
        return self.client_of(SharedClients(self.settings, len(self.clients) % 6), **options)

    def client_of(self, clients: Clients, **options: float) -> DynamoPredictionLog:
        """A client with these connections."""
        log = DynamoPredictionLog(clients, **options)
        self.clients.append(log)
        return log

    def items(self) -> list[dict[str, dict[str, object]]]:
        """Everything in the table."""
        pages = self.dynamodb.get_paginator("scan").paginate(TableName=self.table)
        return [item for page in pages for item in page["Items"]]

    def end(self) -> None:
        """Close all clients."""
        for client in self.clients:
            client.close()
