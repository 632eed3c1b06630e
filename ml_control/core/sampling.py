"""A bounded sample of rows that come in blocks: the same rows however the blocks are cut.

Rows are chosen by a hash of their place in the partition, the smallest hashes win (bottom-k), so
the sample is uniform, needs no second pass and is the same in every run and on every machine. A
hash of the content would be no fair sample: equal rows have equal hashes, so a row that makes up
a third of the partition would be in whole or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
_SPARE = 1.5  # rows that are out stay until the sample holds so many times what is kept


def place_hash(start: int, rows: int) -> NDArray[np.uint64]:
    """SplitMix64 of the places *start* .. *start* + *rows*; shape (rows,)."""
    import numpy as np

    # The sum wraps around, as the generator's own counter does.
    value = np.arange(start + 1, start + 1 + rows, dtype=np.uint64) * np.uint64(_GOLDEN)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(_FIRST)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(_SECOND)
    return value ^ (value >> np.uint64(31))


class RowSample:
    """Up to *most* rows out of all that were added, in their order.

    Holds every row while there are no more than *most*; never more than half as many above it.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.seen = 0
        self._limit: np.uint64 | None = None  # hashes at or above it are out
        self._frames: list[pl.DataFrame] = []
        self._hashes: list[NDArray[np.uint64]] = []

    def add(self, frame: pl.DataFrame) -> None:
        """Take the next block; every block has the same columns."""
        import numpy as np

        hashes = place_hash(self.seen, frame.height)
        self.seen += frame.height
        if self.seen > self.most:
            if self._limit is not None:
                kept = np.flatnonzero(hashes < self._limit)
            else:
                kept = np.arange(frame.height)
            # The limit first, from hashes alone: most rows need never be copied.
            together = np.concatenate([*self._hashes, hashes[kept]])
            if len(together) > self.most:
                self._limit = np.partition(together, self.most)[self.most]
                kept = kept[hashes[kept] < self._limit]
            hashes, frame = hashes[kept], frame[kept]
        if frame.height or not self._frames:
            self._frames.append(frame)
            self._hashes.append(hashes)
        if sum(map(len, self._hashes)) > _SPARE * self.most:
            self._cut()

    @property
    def whole(self) -> bool:
        """Whether no row was left out."""
        return self.seen <= self.most

    def frame(self) -> pl.DataFrame:
        """The rows of the sample; without any block, a frame without columns."""
        import numpy as np
        import polars as pl

        self._cut()
        if len(self._frames) != 1:
            self._frames = [pl.concat(self._frames)] if self._frames else [pl.DataFrame()]
            self._hashes = [np.concatenate(self._hashes)] if self._hashes else []
        return self._frames[0]

    def _cut(self) -> None:
        """Let go of rows that are out. Places differ, so no two hashes are equal."""
        import numpy as np

        if self._limit is None:
            return
        for place, own in enumerate(self._hashes):
            kept = np.flatnonzero(own < self._limit)
            if len(kept) < len(own):
                self._frames[place] = self._frames[place][kept]
                self._hashes[place] = own[kept]


class Distinct:
    """How many different rows there are, at 8 bytes for each row that was added.

    Two different rows count as one with the chance that 64-bit hashes collide: for a partition
    of 20 million rows, about one in 100,000.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._hashes: list[NDArray[np.uint64]] = []

    def add(self, frame: pl.DataFrame, columns: Sequence[str]) -> None:
        """Take the next block, compared in *columns*."""
        import numpy as np

        self.rows += frame.height
        if not columns:
            self._hashes.append(np.zeros(frame.height, dtype=np.uint64))
            return
        # polars' hash may change with its version; it is compared within this process only.
        self._hashes.append(frame.select(columns).hash_rows(seed=7).to_numpy())

    def count(self) -> int:
        """The number of different rows."""
        import numpy as np

        # A quarter at a time, by the first bits: sorting then needs little more room.
        total = 0
        for part in range(4):
            own = [block[block >> np.uint64(62) == part] for block in self._hashes]
            ordered = np.concatenate(own) if own else np.zeros(0, dtype=np.uint64)
            ordered.sort()
            total += int(len(ordered) > 0) + int((ordered[1:] != ordered[:-1]).sum())
        return total


class Levels:
    """How often each text occurs in a column that comes in blocks, with bounded memory.

    Exact up to *most* different texts. Beyond, only the more frequent half keeps its names; the
    rows of the others are counted together, and the number of different texts is estimated from
    the smallest hashes (to about a hundredth).
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._counts: pl.DataFrame | None = None  # level, rows
        self._dropped = 0
        self._smallest: NDArray[np.uint64] | None = None  # only once names were dropped
        self.missing = 0

    def add(self, series: pl.Series) -> None:
        """Take the next block."""
        import polars as pl

        missing = series.null_count()
        self.missing += missing
        texts = series.cast(pl.String).alias("level")
        if missing:
            texts = texts.drop_nulls()
        counts = texts.to_frame().group_by("level").len(name="rows")
        if self._smallest is not None:
            self._estimate(counts["level"])
        if self._counts is not None:
            counts = pl.concat([self._counts, counts]).group_by("level").agg(pl.col("rows").sum())
        self._counts = counts
        if counts.height > self._most:
            self._drop(counts)

    def _drop(self, counts: pl.DataFrame) -> None:
        import polars as pl

        if self._smallest is None:
            self._estimate(counts["level"])
        half = self._most // 2
        # Equal counts by hash: sorting so many texts would take longer than all else.
        ranked = counts.with_columns(tie=pl.col("level").hash(seed=11))
        ranked = ranked.top_k(half, by=["rows", "tie"]).drop("tie")
        self._dropped += int(counts["rows"].sum()) - int(ranked["rows"].sum())
        self._counts = ranked

    def _estimate(self, levels: pl.Series) -> None:
        """Keep the *most* smallest different hashes of all levels."""
        import numpy as np

        hashes = levels.hash(seed=11).to_numpy()
        if self._smallest is not None:
            if len(self._smallest) == self._most:
                hashes = hashes[hashes < self._smallest[-1]]
            hashes = np.concatenate([self._smallest, hashes])
        hashes = np.sort(hashes)
        fresh = np.append(True, hashes[1:] != hashes[:-1])
        self._smallest = hashes[fresh][: self._most]

    @property
    def other(self) -> int:
        """Rows whose level's name was dropped."""
        return self._dropped

    @property
    def distinct(self) -> int:
        """The number of different texts."""
        named = self._counts.height if self._counts is not None else 0
        if self._smallest is None:
            return named
        full = len(self._smallest) == self._most
        share = float(self._smallest[-1]) / 2.0**64
        return max(named, round((self._most - 1) / share) if full else len(self._smallest))

    def counts(self) -> dict[str, int]:
        """Rows by level, of those that have their names."""
        if self._counts is None:
            return {}
        return dict(
            zip(self._counts["level"].to_list(), self._counts["rows"].to_list(), strict=True)
        )
