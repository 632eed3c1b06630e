"""The hyperparameters of the XGBoost container's algorithm mode, refused in its own words.

Standard library only: it runs in the container's interpreter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

REFUSED = re.compile(
    r"(Missing required hyperparameter|Extraneous hyperparameter found|Hyperparameter \S+:|"
    r"Require input for parameter 'num_class'|Do not need to setup parameter 'num_class')"
)
"""How every refusal of this module begins, wherever it is read again."""

_Parser = Callable[[str, str], Any]


class Refused(ValueError):
    """A hyperparameter that the container would refuse; the text is what it would say."""


@dataclass(frozen=True)
class _Bounded:
    """A number within an interval written as in mathematics: ``[0, 1]``, ``(0, +inf)``."""

    kind: type[int] | type[float]
    interval: str

    def __call__(self, name: str, text: str) -> int | float:
        try:
            value = self.kind(text)
        except ValueError:
            raise Refused(
                f"Hyperparameter {name}: could not parse value {text!r} as {self.kind.__name__}"
            ) from None
        low, high = (float(edge) for edge in self.interval[1:-1].split(","))
        above = value > low if self.interval[0] == "(" else value >= low
        below = value < high if self.interval[-1] == ")" else value <= high
        if not (above and below):  # NaN is in no interval
            raise Refused(f"Hyperparameter {name}: {value} is not in {self.interval}")
        return value


def _integer(interval: str) -> _Parser:
    return _Bounded(int, interval)


def _real(interval: str) -> _Parser:
    return _Bounded(float, interval)


def _one_of(*allowed: str) -> _Parser:
    def parse(name: str, text: str) -> str:
        if text not in allowed:
            raise Refused(f"Hyperparameter {name}: {text} is not in [{', '.join(allowed)}]")
        return text

    return parse


def _metrics(name: str, text: str) -> list[str]:
    """A comma-separated list, in order: the last one decides early stopping."""
    found = [part.strip() for part in text.split(",") if part.strip()]
    for metric in found or [text]:
        base, _, cut = metric.partition("@")
        cuttable = base in {"error", "ndcg", "map"} and re.fullmatch(r"[0-9.]+-?", cut)
        if base not in METRICS or (cut and not cuttable):
            raise Refused(f"Hyperparameter {name}: {metric} is not in [{', '.join(METRICS)}]")
    return found


def _text(_name: str, text: str) -> str:
    return text


METRICS = (
    *("rmse", "rmsle", "mae", "mape", "mphe", "logloss", "error", "merror", "mlogloss", "auc"),
    *("aucpr", "ndcg", "map", "poisson-nloglik", "gamma-nloglik", "gamma-deviance"),
    *("tweedie-nloglik", "cox-nloglik"),
)
_OBJECTIVES = (
    *("reg:squarederror", "reg:squaredlogerror", "reg:logistic", "reg:pseudohubererror"),
    *("reg:absoluteerror", "reg:gamma", "reg:tweedie", "count:poisson", "binary:logistic"),
    *("binary:logitraw", "binary:hinge", "multi:softmax", "multi:softprob", "survival:cox"),
)
_KNOWN: dict[str, _Parser] = {
    "num_round": _integer("[1, +inf)"),
    "early_stopping_rounds": _integer("[1, +inf)"),
    "booster": _one_of("gbtree", "gblinear", "dart"),
    "objective": _one_of(*_OBJECTIVES),
    "num_class": _integer("[2, +inf)"),
    "eval_metric": _metrics,
    "eta": _real("[0, 1]"),
    "gamma": _real("[0, +inf)"),
    "max_depth": _integer("[0, +inf)"),
    "min_child_weight": _real("[0, +inf)"),
    "max_delta_step": _real("[0, +inf)"),
    "subsample": _real("(0, 1]"),
    "sampling_method": _one_of("uniform"),
    "colsample_bytree": _real("(0, 1]"),
    "colsample_bylevel": _real("(0, 1]"),
    "colsample_bynode": _real("(0, 1]"),
    "lambda": _real("[0, +inf)"),
    "alpha": _real("[0, +inf)"),
    "lambda_bias": _real("[0, 1]"),
    "tree_method": _one_of("auto", "exact", "approx", "hist"),
    "scale_pos_weight": _real("[0, +inf)"),
    "refresh_leaf": _integer("[0, 1]"),
    "grow_policy": _one_of("depthwise", "lossguide"),
    "max_leaves": _integer("[0, +inf)"),
    "max_bin": _integer("[2, +inf)"),
    "num_parallel_tree": _integer("[1, +inf)"),
    "monotone_constraints": _text,
    "interaction_constraints": _text,
    "sample_type": _one_of("uniform", "weighted"),
    "normalize_type": _one_of("tree", "forest"),
    "rate_drop": _real("[0, 1]"),
    "one_drop": _integer("[0, 1]"),
    "skip_drop": _real("[0, 1]"),
    "tweedie_variance_power": _real("(1, 2)"),
    "huber_slope": _real("(0, +inf)"),
    "base_score": _real("(-inf, +inf)"),
    "feature_selector": _one_of("cyclic", "shuffle", "random", "greedy", "thrifty"),
    "top_k": _integer("[0, +inf)"),
    "seed": _integer("(-inf, +inf)"),
    "seed_per_iteration": _one_of("true", "false"),
    "nthread": _integer("[1, +inf)"),
    "csv_weights": _integer("[0, 1]"),
    "verbosity": _integer("[0, 3]"),
}
# The container takes these; here they would be ignored, so they are refused instead.
_ELSEWHERE = frozenset(
    {
        *("_kfold", "_num_cv_round", "_tuning_objective_metric", "updater"),
        *("save_model_on_termination", "use_dask_gpu_training", "process_type", "dsplit"),
        *("aft_loss_distribution", "aft_loss_distribution_scale", "predictor", "sketch_eps"),
        *("single_precision_histogram", "deterministic_histogram", "max_cached_hist_node"),
    }
)
_MULTICLASS = ("multi:softmax", "multi:softprob")


# Numbers that do not describe a model; to search among them has no meaning.
_NO_SEARCH = frozenset(
    {
        *("num_class", "early_stopping_rounds", "seed", "nthread", "verbosity", "csv_weights"),
        *("base_score", "refresh_leaf"),
    }
)


def kind_of(name: str) -> type[int] | type[float] | None:
    """int or float where a hyperparameter is a number that may be searched, else None."""
    parser = _KNOWN.get(name)
    return parser.kind if isinstance(parser, _Bounded) and name not in _NO_SEARCH else None


def parse_one(name: str, text: str) -> Any:
    """The typed value of one known hyperparameter. Raises ``Refused``."""
    return _KNOWN[name](name, text)


def parse(raw: Mapping[str, str]) -> dict[str, Any]:
    """Typed values of the container's string hyperparameters; ``eval_metric`` is a list.

    Raises ``Refused`` in the container's words for the first that it would refuse, and for those
    that it takes and this trainer does not implement.
    """
    if "num_round" not in raw:
        raise Refused("Missing required hyperparameter: num_round")
    values = {}
    for name, text in raw.items():
        if name in _ELSEWHERE:
            raise Refused(f"Hyperparameter {name}: not supported when training locally")
        if name not in _KNOWN:
            raise Refused(f"Extraneous hyperparameter found: {name}")
        values[name] = _KNOWN[name](name, str(text))
    multiclass = values.get("objective") in _MULTICLASS
    if multiclass and "num_class" not in values:
        raise Refused("Require input for parameter 'num_class' for multi-classification")
    if not multiclass and "num_class" in values:
        raise Refused(
            "Do not need to setup parameter 'num_class' for learning task other than "
            "multi-classification"
        )
    if values.get("booster") == "gblinear" and "early_stopping_rounds" in values:
        # The container would serve all rounds: a linear model cannot be cut to its best one.
        raise Refused("Hyperparameter early_stopping_rounds: not supported with booster gblinear")
    return values
