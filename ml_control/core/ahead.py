"""Making the next item while the last one is used."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")
_END = object()


def one_ahead(items: Generator[_T]) -> Iterator[_T]:
    """The same items in order; each is made in another thread while the one before is used.

    At most one is waiting. What making one raises comes through in its place, and when nobody
    wants more, *items* is closed once the item in the making is done.
    """
    with ThreadPoolExecutor(1, "ahead") as worker:
        try:
            coming = worker.submit(next, items, _END)
            while (item := coming.result()) is not _END:
                coming = worker.submit(next, items, _END)
                yield item  # type: ignore[misc]  # the one other object was told apart above
        finally:
            worker.submit(items.close).result()
