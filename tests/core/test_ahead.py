"""Items made ahead in another thread: the same items, errors and end as without it."""

import threading

import pytest

from ml_control.core.ahead import one_ahead


def test_the_same_items_in_order_made_elsewhere():
    """Nothing is lost, doubled or reordered, and the items come from another thread."""
    makers = set()

    def items():
        for i in range(200):
            makers.add(threading.get_ident())
            yield i

    assert list(range(200)) == list(one_ahead(items()))
    assert threading.get_ident() not in makers


def test_an_error_comes_in_its_place():
    """The items before it come first, then the error itself."""

    def items():
        yield 1
        yield 2
        raise LookupError("third")

    ahead = one_ahead(items())

    assert [1, 2] == [next(ahead), next(ahead)]
    with pytest.raises(LookupError, match="third"):
        next(ahead)


def test_at_most_one_is_waiting_and_the_rest_is_never_made():
    """A user that stops early closes the source, which then has made one item more at most."""
    made, closed = [], threading.Event()

    def items():
        try:
            for i in range(100):
                made.append(i)
                yield i
        finally:
            closed.set()

    ahead = one_ahead(items())
    assert [0, 1] == [next(ahead), next(ahead)]
    ahead.close()

    assert closed.is_set()
    assert 3 >= len(made)
