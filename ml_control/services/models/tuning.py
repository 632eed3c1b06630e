"""Hyperparameters searched by training: each trial is a job, and its outcome is kept.

A search that was interrupted goes on where it stopped, from the trials that the registry has;
the one in between is the same job again and is adopted. Only validation is seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ml_control.core.stopping import chosen
from ml_control.core.tuning import LOGARITHMIC, Number, Trial, best_of, seed_of, study_of, usual
from ml_control.errors import InvalidSpec, PlatformFailed
from ml_control.local.hyperparameters import Refused, kind_of, parse_one
from ml_control.platform import Platform
from ml_control.ports import Round, Search, TrainingJob, TrainingResult, Tried
from ml_control.services.models.progress import Say, teller
from ml_control.spec import Training, Tuning

if TYPE_CHECKING:
    import optuna

_STARTUP_TRIALS = 8  # drawn at random before the sampler learns from them
_UNPRUNED_TRIALS = 4  # run to their end before any is judged by their median
_WARMUP = 0.25  # share of the rounds before a trial may be pruned
_TOO_LONG = "MaxRuntimeExceeded"

Name = Callable[[Mapping[str, str]], TrainingJob]


class _PrunedError(Exception):
    """A trial is worse than the median of those before it."""


def check_ranges(training: Training, where: str) -> None:
    """Raise ``InvalidSpec`` for a range that the container would refuse or that is no range."""
    for name, edges in (training.tuning.ranges if training.tuning else {}).items():
        place = f"{where} attributes.training.tuning.ranges.{name}"
        kind = kind_of(name)
        if kind is None:
            raise InvalidSpec(
                place,
                "is no hyperparameter of the container that can be searched",
                "name a number such as eta, max_depth, subsample or lambda",
            )
        for edge in edges:
            if kind is int and not float(edge).is_integer():
                raise InvalidSpec(place, f"{edge:g} is not an integer", "use whole numbers")
            try:
                parse_one(name, str(kind(edge)))
            except Refused as error:
                step = "stay within what the container takes"
                raise InvalidSpec(place, str(error), step) from error


def tune(
    platform: Platform,
    pipeline: str,
    training: Training,
    usual_job: TrainingJob,
    name: Name,
    say: Say,
) -> tuple[TrainingJob, TrainingResult]:
    """Try settings until there are enough; (the best trial's job, its result).

    ``usual_job`` is what the pipeline file describes without a search, and ``name`` makes the job
    of other hyperparameters. The result is ``adopted`` when nothing was trained here. Raises
    what the trainer raises; a trial that runs too long only counts as failed. ``PlatformFailed``
    when no trial was completed.
    """
    tuning = training.tuning
    if tuning is None:
        raise InvalidSpec("training.tuning", "is not set", "set it, or train without a search")
    search = _Search(platform, pipeline, training, tuning, usual_job, name, say)
    trials = search.run()
    best = best_of(trials)
    if best is None:
        raise PlatformFailed(
            f"{pipeline} tuning",
            f"none of {len(trials)} trials was completed: {trials[-1].reason if trials else ''}",
            "raise training.max_runtime or narrow training.tuning.ranges, then train again",
        )
    say(f"trial {best.number} is the best of {len(trials)}: {_said(best)}")
    job = search.job(best.params)
    # A trial of the platform's own search has a name of the platform's.
    job = replace(job, searched=best.job if best.job != job.name else "")
    result = platform.trainer.train(job, lambda _: None)
    return job, replace(result, adopted=not search.trained)


class _Search:
    """One study: its recorded trials, and the next."""

    def __init__(
        self,
        platform: Platform,
        pipeline: str,
        training: Training,
        tuning: Tuning,
        usual_job: TrainingJob,
        name: Name,
        say: Say,
    ) -> None:
        self._platform, self._pipeline, self._say = platform, pipeline, say
        self._training, self._tuning = training, tuning
        self._usual, self._name = usual_job, name
        self._study = study_of(usual_job.name, tuning.ranges)
        self.trained = False

    def job(self, params: Mapping[str, Number]) -> TrainingJob:
        """The training job of a setting."""
        changed = {name: str(value) for name, value in params.items()}
        return self._name({**self._usual.hyperparameters, **changed})

    def run(self) -> list[Trial]:
        """Every trial, in order, the recorded ones as they are."""
        models = self._platform.registry.models
        trials = [Trial.model_validate(body) for body in models.study(self._pipeline, self._study)][
            : self._tuning.trials
        ]
        if trials:
            self._say(f"{len(trials)} trials were made before and are not repeated")
        for trial in trials:
            if trial.state == "pruned":  # recorded, but perhaps not ended, before a crash
                self._platform.trainer.end(trial.job)
        if len(trials) < self._tuning.trials and self._by_platform(trials):
            return trials
        while len(trials) < self._tuning.trials:
            if sum(trial.seconds for trial in trials) >= self._tuning.max_runtime:
                self._say(f"no time for more than {len(trials)} trials: the best so far counts")
                break
            trials.append(self._try(trials))
        return trials

    def _by_platform(self, trials: list[Trial]) -> bool:
        """Have the platform search, where it does; its trials are recorded and added to these.

        They are known by their jobs, so that a search that goes on after a crash is the same
        search and records none twice. The pipeline file's own setting is tried too, as a job of
        its own: a search is never worse than no search.
        """
        name = f"{self._study}-n{self._tuning.trials}"
        own = usual(self._tuning.ranges, self._training.hyperparameters)
        own = None if any(trial.params == own for trial in trials) else own
        before = sum(not trial.job.startswith(f"{name}-") for trial in trials)
        count = self._tuning.trials - before - (own is not None)
        if count < 1:
            return False
        known = {trial.job for trial in trials}

        def on_trial(tried: Tried) -> None:
            if tried.job not in known:
                trials.append(self._kept(tried, len(trials) + 1))

        search = Search(
            name=name,
            base=self._usual,
            ranges=self._tuning.ranges,
            integers=[one for one in self._tuning.ranges if kind_of(one) is int],
            logarithmic=LOGARITHMIC,
            trials=count,
            seed=seed_of(self._study, before + 1),
            max_runtime=self._tuning.max_runtime,
        )
        if not self._platform.trainer.search(search, on_trial):
            return False
        if own is not None:
            trials.append(self._try(trials, own))
        return True

    def _kept(self, tried: Tried, number: int) -> Trial:
        """A trial of the platform's search, recorded."""
        curve: list[tuple[int, float]] = []
        changed: dict[str, Any] = {}
        if tried.rounds:
            watched = list(tried.rounds[-1].metrics)[-1]
            curve = [(step.index, step.metrics[watched]) for step in tried.rounds]
            changed["watched"] = watched
        if tried.state == "complete" and curve:
            base = self._usual.hyperparameters
            patience = base.get("early_stopping_rounds")
            values = [value for _, value in curve]
            choice = chosen(
                values,
                changed["watched"].partition("-")[2],
                int(base["num_round"]),
                int(patience) if patience else None,
            )
            changed |= {"value": values[choice.best], "rounds_kept": choice.best + 1}
        complete = tried.state != "complete" or bool(curve)
        trial = Trial(
            study=self._study,
            number=number,
            job=tried.job,
            params={n: (kind_of(n) or float)(float(v)) for n, v in tried.params.items()},
            state=tried.state if complete else "failed",
            curve=tuple(curve),
            seconds=tried.seconds,
            reason=tried.reason if complete else "its log shows no rounds",
            **changed,
        )
        self._platform.registry.models.record_trial(self._pipeline, trial.key, trial.to_json())
        self.trained = True
        self._say(f"trial {number}: {_said(trial)}")
        return trial

    def _try(self, before: Sequence[Trial], own: dict[str, Number] | None = None) -> Trial:
        number = len(before) + 1
        asked = _ask(self._study, number, self._space(), before, self._warmup())
        configured = self._training.hyperparameters
        first = usual(self._tuning.ranges, configured) if number == 1 else own
        params = first or {name: self._tidy(name, v) for name, v in asked.params.items()}
        job = self.job(params)
        told = ", ".join(f"{name}={value}" for name, value in params.items())
        what = f"trial {number} of {self._tuning.trials}"
        self._say(f"{what}: {told}")
        tell = teller(self._say, what, int(job.hyperparameters["num_round"]))
        curve: list[tuple[int, float]] = []
        watched, began = "", time.monotonic()

        def on_round(step: Round) -> None:
            nonlocal watched
            tell(step)
            watched = list(step.metrics)[-1]  # as XGBoost: the last metric of the last data
            curve.append((step.index, step.metrics[watched]))
            asked.report(step.metrics[watched], step.index)
            if asked.should_prune():
                raise _PrunedError

        trial = Trial(
            study=self._study, number=number, job=job.name, params=params, state="complete"
        )
        try:
            result = self._platform.trainer.train(job, on_round)
        except _PrunedError:
            why = f"worse than the median after {curve[-1][0] + 1} rounds"
            changed: dict[str, Any] = {"state": "pruned", "reason": why}
            changed["seconds"] = time.monotonic() - began
            self.trained = True
        except PlatformFailed as error:
            if _TOO_LONG not in error.reason:
                raise
            changed = {"state": "failed", "reason": error.reason[:500]}
            changed["seconds"] = time.monotonic() - began
            self.trained = True
        else:
            watched = result.watched
            changed = {"value": result.watched_value, "rounds_kept": result.best_iteration + 1}
            changed["seconds"] = result.seconds
            self.trained |= not result.adopted
        trial = trial.model_copy(update={**changed, "curve": tuple(curve), "watched": watched})
        # Kept before the job is ended: what was decided is known, whatever dies here.
        self._platform.registry.models.record_trial(self._pipeline, trial.key, trial.to_json())
        if trial.state == "pruned":
            self._platform.trainer.end(job.name)
        self._say(f"trial {number}: {_said(trial)}")
        return trial

    def _warmup(self) -> int:
        return int(_WARMUP * float(self._usual.hyperparameters["num_round"]))

    def _space(self) -> dict[str, optuna.distributions.BaseDistribution]:
        from optuna.distributions import FloatDistribution, IntDistribution

        space: dict[str, optuna.distributions.BaseDistribution] = {}
        for name, (low, high) in self._tuning.ranges.items():
            if kind_of(name) is int:
                space[name] = IntDistribution(int(low), int(high))
            else:
                space[name] = FloatDistribution(low, high, log=name in LOGARITHMIC and low > 0)
        return space

    def _tidy(self, name: str, value: Number) -> Number:
        """A value that people can read, still within its range."""
        if isinstance(value, int):
            return value
        low, high = self._tuning.ranges[name]
        return min(max(float(f"{value:.6g}"), low), high)


def _ask(
    study: str,
    number: int,
    space: Mapping[str, optuna.distributions.BaseDistribution],
    before: Sequence[Trial],
    warmup: int,
) -> optuna.Trial:
    """The next trial, decided by the recorded ones and its number alone."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    states = {
        "complete": optuna.trial.TrialState.COMPLETE,
        "pruned": optuna.trial.TrialState.PRUNED,
        "failed": optuna.trial.TrialState.FAIL,
    }
    made = optuna.create_study(
        sampler=optuna.samplers.TPESampler(
            seed=seed_of(study, number), n_startup_trials=_STARTUP_TRIALS
        ),
        pruner=optuna.pruners.MedianPruner(
            n_startup_trials=_UNPRUNED_TRIALS, n_warmup_steps=warmup
        ),
    )
    for trial in before:
        made.add_trial(
            optuna.trial.create_trial(
                state=states[trial.state],
                value=trial.value,
                params=trial.params,
                distributions=dict(space),
                intermediate_values=dict(trial.curve),
            )
        )
    return made.ask(dict(space))


def _said(trial: Trial) -> str:
    told = ", ".join(f"{name}={value}" for name, value in trial.params.items())
    if trial.value is None:
        return f"{told}: {trial.state}: {trial.reason}"
    return f"{told}: {trial.watched}={trial.value:.5f} with {trial.rounds_kept} rounds"
