"""The prediction log: appends a second against bare SQLite, and what reading costs as it grows."""

from __future__ import annotations

import json
import sqlite3
import statistics
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path

from ml_control.local.prediction_log import SqlitePredictionLog
from ml_control.ports import Outcome, Prediction

NAME, SINGLE, BATCH, BATCHES, THREADS = "shop", 400, 500, 30, 8
FEW, MANY, LOOKS = 10_000, 1_000_000, 41
_RECORD = json.dumps([{f"x{i}": i / 7 for i in range(12)}]).encode()
_ANSWER = json.dumps([{"label": "yes", "score": 0.75}]).encode()


def request(number: int, records: bytes | None = _RECORD) -> Prediction:
    """An answered request of one record with twelve columns."""
    challenger = number % 2 == 1
    return Prediction(
        pipeline=NAME, request_id=f"{number:032x}", entity_id=f"customer-{number // 3}",
        rollout_id="rollout", assigned="ab"[challenger], challenger=challenger, share=0.5,
        served="ab"[challenger], model_version="v" * 64, at=1_700_000_000.0 + number / 100,
        latency=0.002, rows=1, records=records, answers=_ANSWER,
    )  # fmt: skip


def main() -> None:
    """Print appends with one and eight writers and in batches, each beside bare SQLite; then the
    readers at both sizes.
    """
    with tempfile.TemporaryDirectory() as folder:
        _appends(Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        _reads(Path(folder))


def _appends(folder: Path) -> None:
    rounds = []
    with closing(SqlitePredictionLog(folder / "log.db")) as log, closing(_bare(folder)) as bare:
        log.append([request(0)])
        for start in range(1, 4):
            base = start * 100_000
            rounds.append(
                (
                    _alone(bare, base),
                    _threads(log, 1, base),
                    _threads(log, THREADS, base + 50_000),
                    _cpu(lambda base=base: _bare_batches(bare, base + 10_000)),
                    _cpu(lambda base=base: _batches(log, base + 20_000)),
                )
            )
    alone, one, eight = (statistics.median(each[i] for each in rounds) for i in range(3))
    bare_cpu, cpu = (statistics.median(each[i][0] for each in rounds) for i in (3, 4))
    bare_wall, wall = (statistics.median(each[i][1] for each in rounds) for i in (3, 4))
    print(f"one record a commit, durable: bare SQLite insert {alone:8,.0f}/s")
    print(f"  1 thread                                       {one:8,.0f}/s")
    print(f"  {THREADS} threads together                             {eight:8,.0f}/s")
    print(
        f"ratio to one bare commit after the other: {one / alone:.2f} with 1 thread, "
        f"{eight / alone:.2f} with {THREADS} (goal: 5,000/s where the disk syncs 1,000 times a "
        "second, which is 5)"
    )
    print(
        f"{BATCH} records in a call: {cpu:.1f} us of processor and {wall:.1f} us a record; a bare "
        f"insert of the same row {bare_cpu:.1f} and {bare_wall:.1f}: ratio {cpu / bare_cpu:.2f} "
        "of processor (it also keys the request, exposes the entity, counts; goal: under 5 us)"
    )


def _bare(folder: Path) -> sqlite3.Connection:
    bare = sqlite3.connect(folder / "bare.db", isolation_level=None, check_same_thread=False)
    bare.execute("PRAGMA journal_mode=WAL")
    bare.execute("PRAGMA synchronous=FULL")
    bare.execute("CREATE TABLE log (id TEXT UNIQUE, entity TEXT, at REAL, records, answers)")
    return bare


def _row(number: int) -> tuple[object, ...]:
    one = request(number)
    return one.request_id, one.entity_id, one.at, one.records, one.answers


def _alone(bare: sqlite3.Connection, base: int) -> float:
    """Bare inserts a second, a commit each."""
    rows = [_row(base + i) for i in range(SINGLE)]
    start = time.perf_counter()
    for row in rows:
        bare.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?)", row)
    return SINGLE / (time.perf_counter() - start)


def _threads(log: SqlitePredictionLog, threads: int, base: int) -> float:
    """Durable appends a second of single records from so many threads."""
    shares = [
        [request(base + place * SINGLE + i) for i in range(SINGLE)] for place in range(threads)
    ]

    def work(share: list[Prediction]) -> None:
        for one in share:
            log.append([one])

    workers = [threading.Thread(target=work, args=(share,)) for share in shares]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return threads * SINGLE / (time.perf_counter() - start)


def _bare_batches(bare: sqlite3.Connection, base: int) -> tuple[float, float]:
    batches = [[_row(base + k * BATCH + i) for i in range(BATCH)] for k in range(BATCHES)]
    start = time.process_time(), time.perf_counter()
    for rows in batches:
        bare.execute("BEGIN IMMEDIATE")
        bare.executemany("INSERT INTO log VALUES (?, ?, ?, ?, ?)", rows)
        bare.execute("COMMIT")
    return time.process_time() - start[0], time.perf_counter() - start[1]


def _batches(log: SqlitePredictionLog, base: int) -> tuple[float, float]:
    batches = [[request(base + k * BATCH + i) for i in range(BATCH)] for k in range(BATCHES)]
    start = time.process_time(), time.perf_counter()
    for rows in batches:
        log.append(rows)
    return time.process_time() - start[0], time.perf_counter() - start[1]


def _cpu(work: object) -> tuple[float, float]:
    """(processor, wall) microseconds a record."""
    processor, wall = work()  # type: ignore[operator]
    return 1e6 * processor / (BATCH * BATCHES), 1e6 * wall / (BATCH * BATCHES)


def _reads(folder: Path) -> None:
    """Fill to few, look, fill to many, look: medians of each reader, and their ratio."""
    found: dict[str, list[float]] = {}
    with closing(SqlitePredictionLog(folder / "log.db")) as log:
        logged = 0
        for size in (FEW, MANY):
            while logged < size:
                log.append([request(logged + i, None) for i in range(FEW)])
                logged += FEW
            log.append([request(10**9 + size + i) for i in range(500)])
            for i in range(200):
                log.tell(NAME, f"{10**9 + size + i:032x}", [Outcome(0, "yes", 0.0)])
            after = log.state(NAME).joined - 100
            looks = {
                "traffic": lambda: log.traffic(NAME, "rollout"),
                "count": lambda end=logged: log.count(NAME, 1_700_000_000.0 + end / 100 - 3600),
                "joined, 100 new": lambda after=after: log.joined(NAME, after, 1000),
                "newest 200": lambda: log.newest(NAME, 200),
                "state": lambda: log.state(NAME),
                "find": lambda: log.find(NAME, f"{5000:032x}"),
            }
            for name, look in looks.items():
                found.setdefault(name, []).append(_median(look))
    for name, (few, many) in found.items():
        print(
            f"{name:>16}: {1e6 * few:7.0f} us at {FEW:,} logged, {1e6 * many:7.0f} us at "
            f"{MANY:,}: ratio {many / few:.2f} (goal: at most 1.5)"
        )


def _median(look: object) -> float:
    times = []
    for _ in range(LOOKS):
        start = time.perf_counter()
        look()  # type: ignore[operator]
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    main()
