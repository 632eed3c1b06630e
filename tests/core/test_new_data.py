"""What the newest model does not know: rows counted object by object, drift from the audits."""

from __future__ import annotations

from ml_control.services.data import new_data as counting
from ml_control.services.data.new_data import new_data

P = "tumours"


def found(home):
    model = home.platform.registry.models.candidate(P)
    return new_data(home.platform, home.pipeline(), model)


def test_without_a_model_every_row_is_new(audited):
    """The first training has all that is published."""
    published = list(audited.platform.registry.partitions.all(P))

    seen = found(audited)

    assert sum(state.processed.rows for state in published) == seen.rows
    assert (seen.first, seen.last) == (
        min(state.processed.at for state in published),
        max(state.processed.at for state in published),
    )
    assert seen.drift is None


def test_a_partition_that_grew_counts_by_what_it_got(trained, monkeypatch):
    """An object more is its rows; one replaced is all of its rows; nothing is read twice."""
    same = found(trained)
    day = trained.days[0]
    landed = trained.land(day, rows=30)[0]
    landed.rename(landed.with_name("more.csv"))
    trained.publish(day)
    grown = found(trained)
    monkeypatch.setattr(counting, "load_processed", None)  # a second look needs no manifest

    assert trained.platform.registry.models.candidate(P).dataset.digest == same.digest
    assert (0, False) == (same.rows, same.drift.beyond)
    assert 30 == grown.rows == found(trained).rows


def test_rows_that_cannot_be_told_apart_are_all_new(trained, monkeypatch):
    """Where a manifest cannot be read, a training too many is better than none."""
    from ml_control.errors import Retryable

    def broken(*_):
        raise Retryable("a manifest", "cannot be read", "try again")

    day = trained.days[0]
    landed = trained.land(day, rows=20)[0]
    landed.rename(landed.with_name("more.csv"))
    trained.publish(day)
    rows = trained.platform.registry.partitions.get(P, day).processed.rows
    with monkeypatch.context() as patched:
        patched.setattr(counting, "load_processed", broken)
        blind = found(trained)

    assert (rows, 20) == (blind.rows, found(trained).rows)


def test_a_new_partition_that_drifted_is_measured(trained):
    """Its own check said so, against the newest model's data; it is named with its column."""
    (landed,) = trained.land(trained.days[2])
    header, *lines = landed.read_text().splitlines()
    benign = [line for line in lines if line.endswith("benign")]
    most = [line for line in lines if line not in benign] + benign[:5]
    landed.write_text("\n".join([header, *most]) + "\n")
    trained.publish(trained.days[2])

    drift = found(trained).drift

    assert ("partition drift", True) == (drift.kind, drift.beyond)
    assert drift.value > drift.bound == 0.2
    assert f"partition {trained.days[2]}: {drift.worst} has a PSI of" in drift.because
