"""Words that were read from the queue for another pipeline, until that pipeline asks for them.

One queue serves all pipelines. What is for another one is kept here before it is deleted there, in
pages of the registry's ledger table. An emptied page is taken again by a later one, so that there
are hardly more than once waited at the same time; only waiting pages have an index value, so that a
tick with an empty inbox reads nothing old.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_control.aws.messages import Word
from ml_control.ports import Item, Put, Table, Tables

_TABLE: Table = "control-ledger"
_WAITING = "inbox"
_PAGE = 100  # words: far below the 400 KB of an item
_NAME = 200  # characters of what may be no pipeline's name


@dataclass(frozen=True)
class Kept:
    """A word in the inbox. ``place`` names its page and its number there."""

    word: Word
    place: str


class Inbox:
    """Pages of words by pipeline."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def put(self, pipeline: str, words: Sequence[Word]) -> None:
        """Keep words, durably when it returns."""
        name = _named(pipeline)
        for start in range(0, len(words), _PAGE):
            page = {
                f"{at:06d}": word.to_json() for at, word in enumerate(words[start : start + _PAGE])
            }
            self._fill(name, page)

    def _fill(self, name: str, page: Mapping[str, Any]) -> None:
        """Fill an empty page. It is guessed among twice as many each time, so that few are looked
        at however many wait, and their numbers stay small.
        """
        pages = 1
        while True:
            sk = f"{name}#{secrets.randbelow(pages):06d}"
            pages *= 2
            before = self._tables.get(_TABLE, _pk(name), sk)
            if before is not None and before.index is not None:
                continue
            # A name of its own for each filling: a place in the page before is no place here.
            body = {"words": page, "filled": time.time_ns()}
            item = Item(_pk(name), sk, body, _WAITING)
            if self._tables.write_each([Put(_TABLE, item, _version(before))])[0]:
                return

    def kept(self, pipeline: str) -> Iterator[Kept]:
        """All words of a pipeline, page by page."""
        for item in self._waiting(_named(pipeline)):
            for number, told in item.body["words"].items():
                yield Kept(Word(**told), f"{item.sk}#{item.body['filled']}#{number}")

    def drop(self, places: Collection[str]) -> None:
        """Forget words; those that are gone already are no matter."""
        pages: dict[str, set[tuple[str, str]]] = {}
        for place in places:
            sk, filled, number = place.rsplit("#", 2)
            pages.setdefault(sk, set()).add((filled, number))
        for sk, gone in pages.items():
            while True:
                pk = _pk(sk.rpartition("#")[0])
                item = self._tables.get(_TABLE, pk, sk)
                if item is None or item.index is None:
                    break
                filled = str(item.body["filled"])
                left = {
                    number: told
                    for number, told in item.body["words"].items()
                    if (filled, number) not in gone
                }
                body = {"words": left, "filled": item.body["filled"]}
                fresh = Item(pk, sk, body, _WAITING if left else None)
                if self._tables.write_each([Put(_TABLE, fresh, item.version)])[0]:
                    break

    def others(self, known: Collection[str]) -> Mapping[str, int]:
        """How many words wait for names that are none of these."""
        found: dict[str, int] = {}
        for item in self._tables.query_index(_TABLE, _WAITING):
            name = item.sk.rpartition("#")[0]
            if name not in known:
                found[name] = found.get(name, 0) + len(item.body["words"])
        return found

    def _waiting(self, name: str) -> Iterator[Item]:
        return self._tables.query_index(_TABLE, _WAITING, prefix=f"{name}#")


def _named(pipeline: str) -> str:
    """A name without '#', which parts the names of pages."""
    return pipeline.replace("#", "%23")[:_NAME] or "%"


def _pk(name: str) -> str:
    return f"inbox#{name}"


def _version(item: Item | None) -> int:
    return item.version if item else 0
