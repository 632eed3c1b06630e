"""The report and its plots: self-contained, escaped, complete also for a refused model."""

from __future__ import annotations

import re
import struct
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest

from ml_control.core.bootstrap import Difference
from ml_control.core.evidence import Contributions
from ml_control.core.metrics import evaluate_all
from ml_control.core.records import Dataset, DatasetPart, GateResult, ModelVersion, Verdict
from ml_control.errors import NotProven
from ml_control.ports import Round
from ml_control.services.models import plots
from ml_control.services.models.plots.contributions import by_feature
from ml_control.services.models.report import compose

HOSTILE = "<script>alert(1)</script>\"'&$\\frac{$ 数"
ROUNDS = [
    Round(i, {"train-logloss": 0.7 / (i + 1), "validation-logloss": 0.75 / (i + 1) + 0.002 * i})
    for i in range(12)
]
GATES = (
    GateResult(name="data_checks", passed=True, reason="2 partitions passed", observed=2.0),
    GateResult(name="metric:auc", passed=False, reason="below", observed=0.71, required=">= 0.8"),
    GateResult(name="champion", passed=True, reason="no champion yet", required="no worse"),
)


GROUPS = [
    {"level": HOSTILE, "rows": 60, "value": 0.7, "judged": True, "passed": False, "reason": "low"},
    {"level": "b", "rows": 90, "value": 0.9, "judged": True, "passed": True, "reason": ""},
    {"level": "c", "rows": 9, "value": 0.5, "judged": False, "passed": None, "reason": "few"},
]


def explained(classes=1, rows=80, image=None):
    """Contributions of six columns of three features (or pixels), the last column missing."""
    rng = np.random.default_rng(5)
    shape = (rows, classes, 7) if classes > 1 else (rows, 7)
    cells = rng.normal(size=(rows, 6))
    cells[:, 5] = np.nan
    sources = ("age", HOSTILE, "job", "job", "job", "gone") if image is None else ("image",) * 6
    return Contributions(rng.normal(size=shape), cells, sources, image)


def model():
    parts = (
        DatasetPart(partition="2026-01-01", digest="d" * 64, path="p", rows=1200),
        DatasetPart(partition="2026-01-02", digest="e" * 64, path="q", rows=800),
    )
    return ModelVersion(
        pipeline="people",
        version="ab" * 32,
        files={"model.tar.gz": "c0" * 32},
        prefix="artifacts/people",
        container="3.2-0",
        dataset=Dataset(pipeline="people", parts=parts),
        features_digest="f" * 64,
        test_set="t" * 64,
        training_job="people-123",
        hyperparameters={"eta": "0.1", "max_depth": "6"},
        best_iteration=7,
        rounds=12,
        metrics={},
        created_at=0.0,
        run="run-1",
    )


def verdict(metrics, **changes):
    checks = [
        {"name": "row_count", "passed": True, "reason": "1200 rows"},
        {"name": "schema", "passed": False, "reason": "age: no such column"},
    ]
    data = (
        {"partition": "2026-01-01", "data_digest": "d" * 64, "passed": False,
         "reason": "failed schema", "checks": checks},
        {"partition": "2026-01-02", "data_digest": "e" * 64, "passed": True,
         "reason": "", "checks": checks[:1]},
    )  # fmt: skip
    fields = {
        "pipeline": "people",
        "model_version": "ab" * 32,
        "gate_config": "9" * 64,
        "champion": None,
        "test_set": "t" * 64,
        "passed": False,
        "gates": GATES,
        "data_checks": data,
        "metrics": metrics,
        "at": 1_780_000_000.0,
        "run": "run-1",
    }
    return Verdict(**{**fields, **changes})


def predictions(task, n=300):
    rng = np.random.default_rng(3)
    if task == "regression":
        y = rng.normal(size=n)
        return y, y + rng.normal(0, 0.3, n)
    if task == "binary":
        y = rng.integers(0, 2, n).astype(float)
        return y, 1 / (1 + np.exp(-(2 * y - 1 + rng.normal(0, 1.5, n))))
    y = rng.integers(0, 3, n)
    p = np.exp(np.eye(3)[y] * 2 + rng.normal(size=(n, 3)))
    return y, p / p.sum(axis=1, keepdims=True)


def report(task="binary", labels=("no", "yes"), champion=None, **changes):
    y, p = predictions(task)
    judged = verdict(evaluate_all(task, y, p), **changes)
    profile = {
        "rows": 2000,
        "features": {
            "age": {
                "count": 1999,
                "missing": 1,
                "min": 17.0,
                "mean": 38.5,
                "max": 90.0,
                "bins": {"edges": [17.0, 30.0, 90.0], "counts": [900, 1099]},
            },
            "job": {"count": 2000, "missing": 0, "levels": {"cook": 1500, HOSTILE: 500}},
        },
        "target": {"count": 2000, "missing": 0, "levels": {"no": 1500, "yes": 500}},
    }
    found = explained(len(labels) if task == "multiclass" else 1)
    page = compose(judged, model(), ROUNDS, y, p, champion, labels, profile, found).html
    return page.decode()


class Reader(HTMLParser):
    """Collects tags, their attributes and the text that a reader sees."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, "tags are closed in order"

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(self.words)


def png_size(data):
    """Width and height, once the file is shown to be a whole PNG with right checksums."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, last = 8, b""
    while at < len(data):
        length, last = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 4 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(body)
        at += 12 + length
    assert last == b"IEND"
    return struct.unpack(">II", data[16:24])


@pytest.mark.parametrize(
    ("task", "labels"),
    [("binary", ("no", "yes")), ("multiclass", ("a", "b", "c")), ("regression", ())],
)
def test_report_needs_nothing_from_outside(task, labels):
    """Every task's report is one well-formed page without links, scripts or outside assets."""
    page = report(task, labels)
    reader = Reader(page)

    assert reader.open == []
    visible = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", page)
    assert re.search(r"https?:|//|url\(|@import", visible) is None
    assert {tag for tag, _ in reader.tags} & {"script", "link", "iframe", "object", "a"} == set()
    sources = [attrs["src"] for tag, attrs in reader.tags if tag == "img"]
    assert len(sources) >= 3
    assert len(page) < 3_000_000
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not any("href" in attrs or "onload" in attrs for _, attrs in reader.tags)


def test_report_says_what_was_decided_and_why():
    """The page holds the verdict, each gate, metrics, checks, lineage and settings."""
    page = report()
    text = Reader(page).text

    for expected in (
        "REFUSED", "failed: metric:auc", "ab" * 32, "0.71", ">= 0.8", "no champion yet",
        "logloss", "2026-01-02", "failed schema", "missing", "d" * 64, "people-123", "3.2-0",
        "8 of 12", "max_depth", "c0" * 32, "2,000 rows in 2 partitions", "17, mean 38.5",
        "2026-05-28", "300 test rows",
    ):  # fmt: skip
        assert expected in text


def test_report_is_equal_for_equal_input():
    """Rendering twice gives the same bytes, so that a report can be named by its digest."""
    assert report() == report()


def test_hostile_texts_are_shown_not_run():
    """Markup in labels, names and reasons reaches the reader as text."""
    gates = (GateResult(name=HOSTILE, passed=False, reason=HOSTILE, required=HOSTILE),)
    page = report(labels=(HOSTILE, "yes"), gates=gates, pipeline=HOSTILE, run=HOSTILE)
    reader = Reader(page)

    assert "<script" not in page
    assert "script" not in {tag for tag, _ in reader.tags}
    assert HOSTILE in reader.text


def test_champion_stands_beside():
    """With a champion its metrics and the difference are shown; not with a misshapen one."""
    y, p = predictions("binary")
    worse = 0.5 + (p - 0.5) * 0.5
    expected = f"{evaluate_all('binary', y, worse)['logloss']:.6g}"

    assert expected in Reader(report(champion=worse)).text
    assert expected not in Reader(report(champion=worse[:10])).text
    assert "REFUSED" in Reader(report(champion=worse[:10])).text


@pytest.mark.parametrize("broken", [None, np.full(300, np.nan), np.zeros((300, 3))])
def test_a_model_without_usable_predictions_has_a_report(broken):
    """A refused model is reported even when there is nothing to plot, and the page says so."""
    y, _ = predictions("binary")

    page = compose(verdict({}), model(), [], y, broken, None, ("no", "yes"), None).html.decode()

    text = Reader(page).text
    assert "REFUSED" in text
    assert "no round was logged" in text
    assert "no plots of predictions" in text


def test_passing_report_says_so():
    """A passing verdict is named as such."""
    text = Reader(report(passed=True, gates=(GATES[0],))).text

    assert "PASSED" in text
    assert "all 1 gates said yes" in text
    assert "REFUSED" not in text


@pytest.mark.parametrize(
    ("name", "draw"),
    [
        ("learning curve", lambda: plots.learning_curve(ROUNDS, 7)),
        ("one round", lambda: plots.learning_curve(ROUNDS[:1], 0)),
        (
            "confusion",
            lambda: plots.confusion(np.array([0, 1, 1]), np.array([0, 1, 0]), ["a", "b"]),
        ),
        ("hostile", lambda: plots.confusion(np.array([0, 1]), np.array([0, 0]), [HOSTILE, "$x"])),
        ("many", lambda: plots.confusion(np.arange(90), np.arange(90), list(map(str, range(90))))),
        ("curves", lambda: plots.roc_pr(*predictions("binary"))),
        ("two", lambda: plots.roc_pr(*predictions("binary"), predictions("binary")[1] ** 2)),
        ("calibration", lambda: plots.calibration(*predictions("binary"))),
        ("few rows", lambda: plots.calibration(np.array([1.0, 0.0]), np.array([1.0, 0.0]))),
        ("residuals", lambda: plots.residuals(*predictions("regression", 9000))),
        ("exact", lambda: plots.residuals(np.ones(3), np.ones(3))),
        ("importance", lambda: plots.importance(explained(), ("n", "y"), "log-odds")),
        ("by class", lambda: plots.importance(explained(12), [HOSTILE] * 12, "margin")),
        ("swarm", lambda: plots.swarm(explained(), "log-odds")),
        ("one row", lambda: plots.swarm(explained(rows=1), "log-odds")),
        ("pixels", lambda: plots.pixels(explained(3, image=(2, 3, 1)), ["a", "b", "_$c"])),
        ("groups", lambda: plots.groups("slice", GROUPS, "auc >= 0.8")),
        ("negative", lambda: plots.groups("slice", [{**GROUPS[0], "value": -3.0}], "r2 >= 0")),
        ("differences", lambda: plots.differences({"auc": Difference(0.1, -0.1, 0.2, 9, 9)})),
    ],
)
def test_every_plot_is_a_readable_png(name, draw):
    """Each plot is a whole PNG of a size that can be read."""
    width, height = png_size(draw())

    assert 300 < width < 2000
    assert 90 < height < 1500


def test_plots_that_cannot_be_drawn_are_refused():
    """A curve that the data does not define is refused, not drawn flat."""
    with pytest.raises(NotProven, match="single class"):
        plots.roc_pr(np.ones(4), np.linspace(0, 1, 4))
    with pytest.raises(NotProven, match="no round"):
        plots.learning_curve([], 0)
    with pytest.raises(NotProven, match="no metric"):
        plots.differences({})
    with pytest.raises(NotProven, match="no group"):
        plots.groups("slice", [{**GROUPS[0], "value": None}], "auc >= 0.8")
    with pytest.raises(NotProven, match="several classes"):
        plots.swarm(explained(3), "margin")
    with pytest.raises(NotProven, match="no image"):
        plots.pixels(explained(), ["a"])


def test_each_task_has_its_plots():
    """Binary, multiclass and regression each get the plots that mean something for them."""
    expected = {
        "binary": {"ROC, precision and recall", "Calibration", "Confusion"},
        "multiclass": {"Confusion"},
        "regression": {"Residuals"},
    }
    labels = {"binary": ("n", "y"), "multiclass": ("a", "b", "c"), "regression": ()}
    for task, titles in expected.items():
        assert titles == set(plots.for_task(task, *predictions(task), labels[task]))
    one_class = plots.for_task("binary", np.ones(9), np.linspace(0, 1, 9), ("n", "y"))
    assert {"Calibration", "Confusion"} == set(one_class)


def test_the_columns_of_a_category_are_one_feature():
    """Contributions of one-hot columns add up to the category's; the bias belongs to none."""
    values = np.array([[1.0, 2.0, -3.0, 0.5, 9.0], [0.0, 1.0, 1.0, -0.5, 9.0]])

    names, summed = by_feature(
        Contributions(values, np.zeros((2, 4)), ("age", "job", "job", "city"))
    )

    assert ("age", "job", "city") == names
    assert [[[1.0, -1.0, 0.5]], [[0.0, 2.0, -0.5]]] == summed.tolist()


@pytest.mark.parametrize(
    ("task", "labels", "names"),
    [
        ("binary", ("no", "yes"), {"learning_curve", "roc", "confusion", "contributions"}),
        ("multiclass", ("a", "b", "c"), {"learning_curve", "confusion", "contributions"}),
        ("regression", (), {"learning_curve", "residuals", "contributions"}),
    ],
)
def test_key_plots_come_with_the_page_and_are_small(task, labels, names):
    """The plots for the asset's metadata are those of the page, each light enough for it."""
    y, p = predictions(task, 2000)
    found = explained(len(labels) if len(labels) > 2 else 1)

    made = compose(verdict(evaluate_all(task, y, p)), model(), ROUNDS, y, p, None, labels, None,
                   found)  # fmt: skip

    assert names == set(made.plots)
    assert all(len(png) < 60_000 and png_size(png) for png in made.plots.values())


def test_slices_and_intervals_are_in_the_page():
    """Each slice has its picture, and each metric its interval beside the champion."""
    _, p = predictions("binary")
    slices = GateResult(name="slice:job:auc", passed=False, reason="1 fails", required=">= 0.8",
                        evidence={"groups": GROUPS})  # fmt: skip
    page = report(champion=0.5 + (p - 0.5) * 0.5, gates=(*GATES, slices))

    text = Reader(page).text
    assert "Slices of the test split" in text
    assert "better by" in text
    assert re.search(r"[+-]0\.\d+ to [+-]0\.\d+", text)
    assert 'alt="slice:job:auc"' in page


def test_a_long_history_of_partitions_keeps_the_page_small():
    """Thousands of partitions are told by the failed and the newest ones, and a count."""
    checks = [{"name": f"check{i}", "passed": True, "reason": "fine"} for i in range(5)]
    parts = [{"partition": f"p{i}", "data_digest": "d" * 64, "passed": i != 4321,
              "reason": "bad" if i == 4321 else "", "checks": checks}
             for i in range(5000)]  # fmt: skip
    page = report(data_checks=tuple(parts))

    assert "p4321" in page
    assert "and 4,800 more" in page
    assert len(page) < 3_000_000
