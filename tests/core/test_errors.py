"""The tree of refusals: what is drawn is what there is, and each survives its travels."""

import inspect
import pickle
import re

import pytest

from ml_control import errors
from ml_control.errors import MlControlError

KINDS = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)
]


def test_the_drawn_tree_is_the_tree():
    """The module's docstring names every class once, each directly below the root."""
    drawn = re.findall(r"[├└]── (\w+) +\S", errors.__doc__)

    assert sorted(["MlControlError", *drawn]) == sorted(kind.__name__ for kind in KINDS)
    assert {MlControlError} == {kind.__base__ for kind in KINDS if kind is not MlControlError}
    assert (Exception,) == MlControlError.__bases__
    assert all(inspect.getdoc(kind) for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_pickling(kind):
    """What a run's process raised is the same error, with its details, in another process."""
    error = kind("a.csv", "is empty", "put it again", row=3, column="age")
    copy = pickle.loads(pickle.dumps(error))

    assert kind is type(copy)
    assert error.to_dict() == copy.to_dict()
    assert str(error) == str(copy)
    assert error.args == copy.args


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_as_data_has_its_kind_and_details(kind):
    """Scripts match on the kind and read the details beside object, reason and next."""
    error = kind("a.csv", "is empty", "put it again", row=3)

    assert {
        "kind": kind.__name__,
        "object": "a.csv",
        "reason": "is empty",
        "next": "put it again",
        "row": 3,
    } == error.to_dict()
    assert kind.__name__ == error.kind


def test_an_error_reads_as_a_sentence():
    """Kind, object, reason, and the next step when there is one."""
    with_next = errors.Conflict("flowers model", "is being changed by run-1", "wait")

    assert "Conflict: flowers model: is being changed by run-1 (next: wait)" == str(with_next)
    assert "Unknown: a: b" == str(errors.Unknown("a", "b"))


def test_an_error_survives_http():
    """What is told as JSON becomes the same kind of error again; an unknown kind is a failure."""
    for kind in errors.MlControlError.__subclasses__():
        error = kind("it", "why", "what now", row=3)

        again = errors.error_from(error.to_dict())

        assert (kind, error.to_dict()) == (type(again), again.to_dict())
    assert isinstance(errors.error_from({"kind": "SystemExit"}), errors.PlatformFailed)
