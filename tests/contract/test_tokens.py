"""Tokens: given out once, kept as hashes, ended by time or by hand."""

from __future__ import annotations

import json

import pytest

from ml_control.errors import Conflict, InvalidSpec
from ml_control.registry import Registry
from ml_control.registry.tokens import matching


@pytest.fixture
def clock():
    """The time, which tests move."""
    return [1000.0]


@pytest.fixture
def tokens(storage, clock):
    """The tokens of a fresh registry."""
    return Registry(storage.client(), clock=lambda: clock[0]).tokens


def known(tokens):
    """What the gateway compares with."""
    return {token.name: token for token in tokens.all()}


def test_only_the_text_that_was_given_out_matches(tokens):
    """Neither another secret nor another name nor a part of the text does."""
    token, text = tokens.create("alice", "manager")
    _, other = tokens.create("bob", "reader")
    secret = text.rpartition("_")[2]

    assert token == matching(known(tokens), text)
    for wrong in ("", text[:-1], text + "x", secret, f"mlc_bob_{secret}", f"mlc_carol_{secret}"):
        assert matching(known(tokens), wrong) is None
    assert text != other


def test_the_registry_holds_no_secret(tokens, tmp_path):
    """What is stored does not contain the text."""
    _, text = tokens.create("alice", "caller")
    secret = text.rpartition("_")[2]

    assert secret not in json.dumps([vars(token) for token in tokens.all()])
    for file in tmp_path.glob("registry.db*"):
        assert secret.encode() not in file.read_bytes()


def test_a_token_expires_and_is_revoked(tokens, clock):
    """Its state follows the clock and a person."""
    token, _ = tokens.create("alice", "reader", seconds=60)
    assert "valid" == token.state(clock[0])
    assert "expired" == token.state(clock[0] + 60)

    revoked = tokens.revoke("alice")

    assert "revoked" == revoked.state(clock[0])
    assert revoked == tokens.revoke("alice")


def test_a_name_has_one_valid_token(tokens, clock):
    """While it is valid the name is taken; afterwards it is given out again with a new secret."""
    _, first = tokens.create("alice", "caller", seconds=60)
    with pytest.raises(Conflict, match="alice"):
        tokens.create("alice", "manager")

    clock[0] += 61
    token, second = tokens.create("alice", "manager")

    assert matching(known(tokens), first) is None
    assert token == matching(known(tokens), second)


@pytest.mark.parametrize("name", ["", "Alice", "a b", "a\n", "x" * 64, "_a", "ä"])
def test_names_are_plain(tokens, name):
    """A name stands in histories and files: it has no odd characters."""
    with pytest.raises(InvalidSpec):
        tokens.create(name, "caller")


def test_unknown_roles_and_names_are_refused(tokens):
    """Nothing is made or taken back then."""
    with pytest.raises(InvalidSpec, match="no role"):
        tokens.create("alice", "root")
    with pytest.raises(InvalidSpec, match="no such token"):
        tokens.revoke("nobody")

    assert [] == tokens.all()
