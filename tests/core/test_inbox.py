"""Words for other pipelines wait in pages, however many there are."""

from __future__ import annotations

from collections import Counter

import pytest

from ml_control.aws.inbox import Inbox
from ml_control.aws.messages import Word
from ml_control.local.registry import SqliteTables


class Counted:
    """Tables whose items are counted as they are read."""

    def __init__(self, tables):
        self._tables, self.read = tables, Counter()
        self.write_each = tables.write_each

    def get(self, *key):
        self.read["get"] += 1
        return self._tables.get(*key)

    def query_index(self, *key, **more):
        for item in self._tables.query_index(*key, **more):
            self.read["query"] += 1
            yield item


@pytest.fixture
def tables(tmp_path):
    found = SqliteTables(tmp_path / "registry.db")
    yield Counted(found)
    found.close()


def test_keeping_a_word_reads_little_however_many_wait(tables):
    """Words of a name that no pipeline has are never taken away: they must not slow the others."""
    inbox = Inbox(tables)
    for number in range(300):
        inbox.put("stray", [Word("object", pipeline="stray", key=f"stray/{number}")])
    tables.read.clear()

    inbox.put("stray", [Word("object", pipeline="stray", key="stray/last")])

    assert tables.read["get"] <= 40
    assert 0 == tables.read["query"]
    assert 301 == len({kept.word.key for kept in inbox.kept("stray")})


def test_pages_are_hardly_more_than_ever_waited_at_once(tables):
    """However often pages are filled and emptied, they are used again."""
    inbox = Inbox(tables)
    for turn in range(60):
        inbox.put("p", [Word("object", pipeline="p", key=f"p/{turn}-{n}") for n in range(250)])
        kept = list(inbox.kept("p"))
        assert 250 == len(kept)
        inbox.drop([one.place for one in kept])

    assert len(list(tables._tables.query("control-ledger", "inbox#p"))) <= 32
    assert [] == list(inbox.kept("p"))
