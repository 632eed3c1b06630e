"""The registry in DynamoDB lost, and restored to an older point in time into new tables."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from emulators import credentials, fresh_settings

from ml_control.aws.anchors import LakeAnchors
from ml_control.aws.client import Clients
from ml_control.aws.registry import DynamoTables
from ml_control.aws.schema import KEYS
from ml_control.cli.main import cli
from ml_control.errors import Conflict, Retryable, Unknown
from ml_control.ports import TABLES, Item, Put
from ml_control.registry import Registry
from ml_control.services.models.training import train
from ml_control.services.releases.deployment import deploy, route
from ml_control.services.releases.reconcile import STAGE, after_restore, require_whole
from ml_control.testing.account import make_tables

NAME = "tumours"


def quiet(_):
    """Nobody listens."""


class Restored:
    """A home whose registry is in DynamoDB, and copies of its tables as they were earlier."""

    def __init__(self, home) -> None:
        self.home, self.aws = home, fresh_settings()
        self.clients = Clients(self.aws)
        self.client = self.clients.client("dynamodb")
        make_tables(self.clients)
        local, tables = home.platform.registry.tables, self.tables(self.aws)
        for table, pk in self.partitions(local):
            items = [replace(item, version=0) for item in local.query(table, pk)]
            assert all(tables.write_each([Put(table, item, 0) for item in items]))
        self.platform = self.opened(self.aws)

    def partitions(self, local):
        """Every table and partition key of the home's own registry."""
        connection = local._connection()
        for table in TABLES:
            for (pk,) in connection.execute(f'SELECT DISTINCT pk FROM "{table}"').fetchall():
                yield table, pk

    def tables(self, aws):
        """A client of the tables that these settings name."""
        return DynamoTables(Clients(aws), self.home.platform.lake)

    def opened(self, aws):
        """The home's platform with the registry that these settings name."""
        anchors = LakeAnchors(self.home.platform.lake)
        registry = Registry(self.tables(aws), anchors=anchors)
        return replace(self.home.platform, registry=registry)

    def now(self):
        """All items of all tables, as a point in time."""
        found = {}
        for table in TABLES:
            pages = self.client.get_paginator("scan").paginate(TableName=self.aws.table(table))
            found[table] = [item for page in pages for item in page["Items"]]
        return found

    def restored(self, point):
        """Settings that name new tables with these items, as point-in-time recovery makes them."""
        names = {table: f"{self.aws.table(table)}-restored" for table in TABLES}
        aws = self.aws.model_copy(update={"tables": names})
        make_tables(Clients(aws))
        for table, items in point.items():
            for item in items:
                self.client.put_item(TableName=names[table], Item=item)
        return aws


@pytest.fixture
def world(audited):
    """Two published days, no model yet, in DynamoDB."""
    with credentials():
        yield Restored(audited)


def test_a_registry_restored_to_a_point_in_time_is_reconciled(world):
    """What serves without a verdict there is stopped and named, half a transaction is made whole,
    a zombie from before finds no lease of its own, and work goes on to the same model.
    """
    platform, pipeline = world.platform, world.home.pipeline()
    point = world.now()
    trained = train(platform, pipeline, "run 1", quiet)
    assert trained.verdict.passed
    for _ in range(9):  # numbers that the endpoint will have seen, and the restored registry not
        platform.registry.leases.release(platform.registry.leases.acquire(NAME, STAGE, "earlier"))
    deploy(platform, pipeline, "run 1", quiet)
    live = route(platform, pipeline, "run 1", quiet).champion
    zombie = platform.registry.leases.acquire(NAME, STAGE, "zombie")
    assert live == platform.endpoints.describe(f"{NAME}-a").model_version
    # A moment in which a transaction was made in part: entries that have no item, and one lost.
    entries = [item for item in point["control-ledger"] if item["Subject"]["S"][:6] == "index#"]
    point["control-ledger"].remove(entries[0])
    stray = dict(entries[1], Subject={"S": "index#pending#tumours"})
    point["control-ledger"].append(stray)

    aws = world.restored(point)
    now = world.opened(aws)
    assert 2 == now.registry.tables.repair()
    assert 0 == now.registry.tables.repair()
    assert 0 == now.registry.ledger.counts(NAME)["pending"]
    with pytest.raises(Unknown, match="anchored outside"):
        now.registry.history.verify(NAME)
    require_whole(now, pipeline)
    found = after_restore(now, pipeline, "09:30", actor="ml-control reconcile")

    assert any(f"holds model {live[:12]}" in item.reason for item in found)
    assert any("is in the lake, and the registry does not know it" in item.reason for item in found)
    assert "Missing" == now.endpoints.describe(f"{NAME}-a").state
    newest = now.registry.history.newest(NAME)
    assert ["restored", "halted"] == [next(newest).action for _ in range(2)]
    assert now.registry.history.verify(NAME) >= 2

    heir = now.registry.leases.acquire(NAME, STAGE, "heir")
    write = Put("control-ledger", Item("p", "zombie", {}), 0)
    with pytest.raises(Conflict):
        now.registry.tables.transact([now.registry.leases.fence(zombie), write])
    now.registry.leases.release(heir)

    again = train(now, pipeline, "run 2", quiet)
    assert (live, True) == (again.model.version, again.verdict.passed)
    with pytest.raises(Retryable, match="caught up"):  # the endpoint has seen a higher number
        deploy(now, pipeline, "run 2", quiet)
    deploy(now, pipeline, "run 2", quiet)
    assert live == route(now, pipeline, "run 2", quiet).champion


def test_a_chain_cut_by_the_restore_is_refused(world):
    """A decision that was being written at that very moment: another second must be chosen."""
    world.platform.registry.history.append(NAME, "note", "s", "because", actor="x")
    point = world.now()
    keys = KEYS["control-ledger"]
    point["control-ledger"] = [
        item
        for item in point["control-ledger"]
        if (item[keys[0]]["S"], item[keys[1]]["S"]) != (f"decision#{NAME}", "~head")
    ]

    now = world.opened(world.restored(point))
    with pytest.raises(Unknown, match="its end is missing"):
        require_whole(now, world.home.pipeline())
    assert [] == [d for d in now.registry.history.decisions(NAME) if d.action == "restored"]


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_a_file_is_no_backup_of_tables(audited, command):
    """On platform aws the commands name point-in-time recovery and what to do after it."""
    from click.testing import CliRunner

    arguments = ["--home", str(audited.path), "--pipelines", str(audited.pipelines), command]
    aws = {"ML_CONTROL_PLATFORM": "aws"}  # for the command alone: the home's end is local
    result = CliRunner().invoke(cli, [*arguments, "file.db"], env=aws)

    assert 1 == result.exit_code
    assert "InvalidSpec: ml-control " + command in result.stderr
    assert "point-in-time recovery" in result.stderr
    assert "ml-control reconcile TIME" in result.stderr


def test_reconcile_says_what_differs(audited):
    """The command on the local platform, where somebody put the file back by hand."""
    from click.testing import CliRunner

    arguments = ["--home", str(audited.path), "--pipelines", str(audited.pipelines), "reconcile"]
    result = CliRunner().invoke(cli, [*arguments, "yesterday", "--json"])

    assert 0 == result.exit_code, result.stderr
    told = json.loads(result.stdout)
    assert ("yesterday", 0, [NAME]) == (told["source"], told["repaired"], [*told["differences"]])
    (decision,) = list(audited.platform.registry.history.decisions(NAME))[-1:]
    assert ("restored", "ml-control reconcile") == (decision.action, decision.actor)
