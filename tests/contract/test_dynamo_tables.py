"""What only DynamoDB can do to the registry: lost answers, contention, limits, wrong tables."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from botocore.exceptions import ReadTimeoutError

from ml_control.aws.registry import DynamoTables
from ml_control.aws.schema import KEYS
from ml_control.errors import Conflict, InvalidSpec, PlatformFailed, Retryable, Unknown
from ml_control.lake import Lake
from ml_control.ports import Check, Item, Put

T = "control-ledger"
pytestmark = pytest.mark.parametrize("storage", ["aws"], indirect=True)


def item(sk="s", pk="p", index=None, **body):
    return Item(pk, sk, body, index)


def keys(items):
    return [found.sk for found in items]


class World:
    """Tables whose requests are counted and can be made to fail."""

    def __init__(self, storage, monkeypatch, patience=5.0) -> None:
        clients = storage.clients()
        self.settings, self.lake = storage.settings, Lake.local(storage.lake)
        self.client = clients.client("dynamodb")
        self.tables = DynamoTables(clients, self.lake, patience=patience)
        self.other = storage.client()
        self.monkeypatch = monkeypatch
        self.counts: Counter[str] = Counter()
        self.client.meta.events.register("before-call.dynamodb", self._count)

    def _count(self, model, **_):
        self.counts[model.name] += 1

    def requests(self, work):
        """The requests of some work, by operation."""
        self.counts.clear()
        work()
        return dict(self.counts)

    def on_transact(self, before=None, after=None):
        """Do something before or after each transaction; gives the tokens that were sent."""
        send, tokens = self.client.transact_write_items, []

        def transact_write_items(**request):
            tokens.append(request["ClientRequestToken"])
            if before:
                before(len(tokens))
            answer = send(**request)
            if after:
                after(len(tokens))
            return answer

        self.monkeypatch.setattr(self.client, "transact_write_items", transact_write_items)
        return tokens

    def raw(self, pk, sk, table=T):
        """A stored item's key."""
        return {
            "TableName": self.settings.table(table),
            "Key": {name: {"S": value} for name, value in zip(KEYS[table], (pk, sk), strict=True)},
        }


@pytest.fixture
def world(storage, monkeypatch):
    """A storage whose requests can be made to fail, and another client of it."""
    return World(storage, monkeypatch)


def lost(*numbers):
    """The answers to these tries do not come."""

    def fail(number):
        if number in numbers:
            raise ReadTimeoutError(endpoint_url="https://dynamodb")

    return fail


def raising(world, *codes, until):
    """Cancel the first tries, with a reason for each action."""
    reasons = [{"Code": code, "Message": "words of DynamoDB"} for code in codes]
    told = {"Error": {"Code": "TransactionCanceledException"}, "CancellationReasons": reasons}

    def fail(number):
        if number <= until:
            raise world.client.exceptions.TransactionCanceledException(told, "TransactWriteItems")

    return fail


def test_an_answer_that_was_lost_is_no_conflict(world):
    """A transaction that was done while its answer was lost is asked for by the same token."""
    tokens = world.on_transact(after=lost(1, 2))
    world.tables.transact([Put(T, item(n=1, index="i"), 0)])

    assert (3, 1) == (len(tokens), len(set(tokens)))
    assert Item("p", "s", {"n": 1}, "i", 1) == world.other.get(T, "p", "s")
    world.on_transact(after=lost(1))
    assert [True, True] == world.tables.write_each([Put(T, item(n=2), 1), Put(T, item("t"), None)])
    assert (2, 1) == (world.other.get(T, "p", "s").version, world.other.get(T, "p", "t").version)


def test_a_request_that_never_came_is_sent_again(world):
    """What was not done is done once, by the same token."""
    tokens = world.on_transact(before=lost(1))
    assert [True] == world.tables.write_each([Put(T, item(n=1), 0)])

    assert 1 == len(set(tokens))
    assert 1 == world.other.get(T, "p", "s").version


def test_another_ones_write_behind_a_lost_answer_is_a_conflict(world):
    """A request that never came, and someone else who was faster: the Conflict is true."""

    def other_first(number):
        if number == 1:
            world.other.transact([Put(T, item(by="other"), 0)])
            lost(1)(1)

    world.on_transact(before=other_first)
    with pytest.raises(Conflict, match="p s"):
        world.tables.transact([Put(T, item(by="mine"), 0)])
    assert {"by": "other"} == world.other.get(T, "p", "s").body


@pytest.mark.parametrize("code", ["TransactionConflict", "ThrottlingError"])
def test_contention_is_waited_out(world, code):
    """A transaction that met another is sent again with a new token; nobody sees a Conflict."""
    tokens = world.on_transact(before=raising(world, "None", code, until=3))
    world.tables.transact([Put(T, item(), 0), Put(T, item("t"), 0)])

    assert 4 == len(set(tokens))
    assert ["s", "t"] == keys(world.other.query(T, "p"))


def test_contention_without_end_is_retryable(storage, monkeypatch):
    """After its patience a writer is told to try again; nothing was written."""
    world = World(storage, monkeypatch, patience=0.2)
    world.on_transact(before=raising(world, "TransactionConflict", until=10_000))

    for write in (world.tables.transact, world.tables.write_each):
        with pytest.raises(Retryable, match="TransactionConflict"):
            write([Put(T, item(), 0)])
    assert world.other.get(T, "p", "s") is None


def test_what_dynamodb_refuses_is_told_in_its_words(world):
    """A reason that no waiting helps against ends at once."""
    tokens = world.on_transact(before=raising(world, "ValidationError", until=10_000))

    with pytest.raises(PlatformFailed, match="words of DynamoDB"):
        world.tables.transact([Put(T, item(), 0)])
    assert 1 == len(tokens)


def test_the_first_condition_that_failed_is_named(world):
    """In the order of the writes, whether the client had to look before or not."""
    world.other.transact([Put(T, item("a"), 0), Put(T, item("lease", token=2), 0)])
    fence = Check(T, "p", "lease", {"token": 1})

    with pytest.raises(Conflict, match="p a"):
        world.tables.transact([Put(T, item("new"), 0), Put(T, item("a"), 0), fence])
    with pytest.raises(Conflict, match=r"p lease.*token is 2, not 1"):
        world.tables.transact([Put(T, item("new"), 0), fence, Put(T, item("a"), 0)])
    with pytest.raises(Conflict, match="p a"):
        world.tables.transact([Put(T, item("new"), 0), Put(T, item("a"), 0), Put(T, item("b"), 7)])
    assert ["a", "lease"] == keys(world.other.query(T, "p"))


def test_a_checked_item_may_be_renewed_meanwhile(world):
    """A heartbeat between look and write is no loss of the lease; another holder is."""
    world.other.transact([Put(T, item("lease", token=1, beat=0), 0)])
    fence = Check(T, "p", "lease", {"token": 1})

    def renewed(number):
        if number < 3:
            world.other.transact([Put(T, item("lease", token=1, beat=number), number)])

    world.on_transact(before=renewed)
    world.tables.transact([Put(T, item("mine"), 0), fence])
    assert 1 == world.other.get(T, "p", "mine").version

    taken = [lambda: world.other.transact([Put(T, item("lease", token=2), None)])]
    world.on_transact(before=lambda _: taken.pop()() if taken else None)
    with pytest.raises(Conflict, match="token is 2"):
        world.tables.transact([Put(T, item("late"), 0), fence])
    assert world.other.get(T, "p", "late") is None


@pytest.mark.parametrize("expect", [None, 0, 2])
def test_a_wrong_guess_of_the_index_leaves_no_entry_behind(world, expect):
    """Another client moved the item since this one saw it: the entry that is removed is the one
    that is there.
    """
    world.tables.transact([Put(T, item(index="first"), 0)])
    world.other.transact([Put(T, item(index="second"), 1)])

    def write():
        return world.tables.write_each([Put(T, item(index="third"), expect)])[0]

    assert (expect != 0) == write()
    counts = {index: world.other.count_index(T, index) for index in ("first", "second", "third")}
    assert {"first": 0, "second": int(expect == 0), "third": int(expect != 0)} == counts


def test_an_item_made_anew_under_its_old_version_is_not_mistaken(world):
    """After a restore the same version may have another index value: what is there decides."""
    world.tables.transact([Put(T, item(index="before"), 0)])
    world.client.delete_item(**world.raw("p", "s"))
    world.client.delete_item(**world.raw("index#before", "s\x01\x01p"))
    world.other.transact([Put(T, item(index="after"), 0)])

    world.tables.transact([Put(T, item(index="next"), 1)])
    assert (0, 1) == (world.other.count_index(T, "after"), world.other.count_index(T, "next"))


def test_requests_are_few(world):
    """Nothing is asked before a write that knows its item; many writes share a transaction."""
    tables = world.tables
    every = [Put(T, item(f"{i:03d}", index="open"), 0) for i in range(200)]
    assert {"TransactWriteItems": 4} == world.requests(lambda: tables.write_each(every))
    assert {"TransactWriteItems": 4} == world.requests(lambda: tables.write_each(every))
    moved = [Put(T, item(f"{i:03d}", index="done"), 1) for i in range(99)]
    assert {"TransactWriteItems": 3} == world.requests(lambda: tables.write_each(moved))
    fence = Check(T, "p", "000", {})
    assert {"BatchGetItem": 1, "TransactWriteItems": 1} == world.requests(
        lambda: tables.transact([fence, Put(T, item("new"), 0)])
    )
    unseen = [Put(T, item(f"{i:03d}", pk="q"), None) for i in range(100)]
    assert {"BatchGetItem": 1, "TransactWriteItems": 1} == world.requests(
        lambda: tables.write_each(unseen)
    )
    assert {"TransactWriteItems": 1} == world.requests(lambda: tables.transact(unseen))
    assert {"GetItem": 1} == world.requests(lambda: tables.get(T, "p", "000"))
    assert {"Query": 1} == world.requests(lambda: list(tables.query_index(T, "absent")))
    assert {"Query": 1} == world.requests(lambda: list(tables.query(T, "p", limit=5)))
    sizes: list[int] = []
    count = lambda parsed, **_: sizes.append(parsed["Count"])  # noqa: E731
    world.client.meta.events.register("after-call.dynamodb.Query", count)
    assert "new" == next(tables.query(T, "p", reverse=True)).sk
    assert [50] == sizes
    assert 201 == len(list(tables.query(T, "p", reverse=True)))


def test_more_actions_than_a_transaction_takes_are_refused_before_any_request(world):
    """33 writes that move between index values fit, 34 do not, and nothing is sent."""
    writes = [Put(T, item(f"{i:02d}", index="a"), 0) for i in range(34)]
    assert all(world.tables.write_each(writes))
    moves = [Put(T, item(f"{i:02d}", index="b"), 1) for i in range(34)]

    def refused():
        with pytest.raises(InvalidSpec, match="102 actions"):
            world.tables.transact(moves)

    assert {} == world.requests(refused)
    world.tables.transact(moves[:33])
    assert (1, 33) == (world.other.count_index(T, "a"), world.other.count_index(T, "b"))


def test_a_transaction_above_four_megabytes_goes_to_the_lake_in_part(world):
    """A hundred bodies that fit one by one are written together all the same."""
    noise = random.Random(1)
    bodies = [{"text": noise.randbytes(30_000).hex()} for _ in range(100)]
    world.tables.transact([Put(T, Item("p", f"{i:02d}", body), 0) for i, body in enumerate(bodies)])

    assert bodies == [found.body for found in world.other.query(T, "p")]
    assert 0 < len(list(world.lake.list(f"logs/registry/{T}"))) < 50


def test_a_body_that_the_lake_lost_or_changed_is_unknown(world):
    """What is not the bytes that were written is not taken for them; others are read."""
    body = {"text": random.Random(1).randbytes(400_000).hex()}
    world.tables.transact([Put(T, Item("p", "s", body), 0), Put(T, item("t"), 0)])
    (key,) = world.lake.list(f"logs/registry/{T}")
    data = world.lake.get(key)

    for damage in (lambda: world.lake.put(key, data[:-1]), lambda: world.lake.delete(key)):
        damage()
        for read in (
            lambda: world.other.get(T, "p", "s"),
            lambda: list(world.other.query(T, "p")),
            lambda: world.other.transact([Check(T, "p", "s", {"text": ""}), Put(T, item("u"), 0)]),
        ):
            with pytest.raises(Unknown, match="p s") as refusal:
                read()
        assert key in refusal.value.reason
    assert (1, None) == (world.other.get(T, "p", "t").version, world.other.get(T, "p", "u"))
    world.tables.transact([Put(T, Item("p", "again", body), 0)])
    assert body == world.other.get(T, "p", "s").body


def test_a_writer_that_dies_after_the_lake_leaves_no_item(world):
    """The object comes first; without its item it says nothing and harms nothing."""
    body = {"text": random.Random(1).randbytes(400_000).hex()}

    def die(**_):
        raise KeyboardInterrupt

    with world.monkeypatch.context() as patched:
        patched.setattr(world.client, "transact_write_items", die)
        with pytest.raises(KeyboardInterrupt):
            world.tables.transact([Put(T, Item("p", "s", body), 0)])
    assert world.other.get(T, "p", "s") is None

    world.other.transact([Put(T, Item("p", "s", body), 0)])
    assert body == world.tables.get(T, "p", "s").body


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("Body", {"S": '{"n":2}'}),
        ("Body", {"S": "{"}),
        ("IndexValue", {"S": "done"}),
        ("Sum", {"N": "1"}),
    ],
)
def test_a_record_changed_by_hand_is_refused(world, attribute, value):
    """Any part of a record edited in the console is found when it is read or checked."""
    world.tables.transact([Put(T, item(n=1, index="open"), 0)])
    world.client.update_item(
        **world.raw("p", "s"),
        UpdateExpression="SET #a = :a",
        ExpressionAttributeNames={"#a": attribute},
        ExpressionAttributeValues={":a": value},
    )

    for read in (
        lambda: world.other.get(T, "p", "s"),
        lambda: world.other.transact([Check(T, "p", "s", {"n": 1}), Put(T, item("t"), 0)]),
    ):
        with pytest.raises(PlatformFailed, match="p s") as refusal:
            read()
    assert "point in time" in refusal.value.next
    assert world.other.get(T, "p", "t") is None


def test_keys_that_dynamodb_left_out_are_asked_for_again(world):
    """A batch that was answered in part is read whole."""
    world.other.write_each([Put(T, item(f"{i}", index="i"), 0) for i in range(9)])
    read = world.client.batch_get_item

    def half(RequestItems):  # noqa: N803 - boto3's name
        ((name, asked),) = RequestItems.items()
        now, later = asked["Keys"][:2], asked["Keys"][2:]
        answer = read(RequestItems={name: {**asked, "Keys": now}})
        return {**answer, "UnprocessedKeys": {name: {**asked, "Keys": later}} if later else {}}

    world.monkeypatch.setattr(world.client, "batch_get_item", half)
    assert [True] * 9 == world.tables.write_each([Put(T, item(f"{i}"), 1) for i in range(9)])
    assert 0 == world.other.count_index(T, "i")


def test_a_missing_or_wrong_table_names_its_setting(world):
    """Whatever is asked of it, and when it is looked at; nothing is written elsewhere."""
    name = world.settings.table(T)
    world.client.delete_table(TableName=name)
    tables = world.tables

    def refusals():
        for ask in (
            tables.require_tables,
            lambda: tables.get(T, "p", "s"),
            lambda: list(tables.query(T, "p")),
            lambda: tables.count_index(T, "i"),
            lambda: tables.transact([Put(T, item(), 0), Put("model-metadata", item(), 0)]),
            lambda: tables.write_each([Put(T, item(), None)]),
        ):
            with pytest.raises(InvalidSpec) as refusal:
                ask()
            assert f"setting aws.tables.{T}" == refusal.value.object
            assert name in refusal.value.reason
            yield refusal.value

    assert all("there is no DynamoDB table" in error.reason for error in refusals())
    world.client.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "Subject", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "Subject", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    with pytest.raises(InvalidSpec, match="is keyed by Subject") as refusal:
        tables.require_tables()
    assert f"setting aws.tables.{T}" == refusal.value.object
    assert world.other.get("model-metadata", "p", "s") is None
