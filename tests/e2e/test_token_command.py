"""The command that makes, lists and takes back tokens."""

from __future__ import annotations

import pytest


@pytest.fixture
def shell(tmp_path, make_shell):
    """Commands on a fresh home."""
    return make_shell(tmp_path)


def test_a_token_is_shown_once_and_listed_without_its_text(shell):
    """``create`` prints it alone on stdout; ``list`` has name, role and state."""
    text = shell(
        "token", "create", "alice", "--role", "manager", "--expires", "30 d"
    ).stdout.strip()
    told = shell("token", "list").stdout + str(shell.json("token", "list"))

    assert text.startswith("mlc_alice_")
    assert text.rpartition("_")[2] not in told
    (listed,) = shell.json("token", "list")["tokens"]
    assert ("alice", "manager", "valid") == (listed["name"], listed["role"], listed["state"])
    assert pytest.approx(30 * 86400.0) == listed["expires_at"] - listed["created_at"]


def test_a_token_can_be_written_to_a_file_for_its_owner_alone(shell):
    """It is not shown then, and no file is written over."""
    file = shell.root / "token"

    shown = shell("token", "create", "ci", "--role", "caller", "--output", file).stdout
    refused = shell("token", "create", "b", "--role", "caller", "--output", file, status=1)

    assert 0o600 == file.stat().st_mode & 0o777
    assert file.read_text().startswith("mlc_ci_")
    assert file.read_text().strip() not in shown
    assert "Conflict" in refused.stderr
    assert ["ci"] == [one["name"] for one in shell.json("token", "list")["tokens"]]


def test_a_revoked_name_is_free_again(shell):
    """``revoke`` ends it; twice is harmless; an unknown one is refused."""
    shell("token", "create", "alice", "--role", "reader")
    assert "Conflict" in shell("token", "create", "alice", "--role", "reader", status=1).stderr

    shell("token", "revoke", "alice")
    shell("token", "revoke", "alice")

    shell("token", "create", "alice", "--role", "caller")
    assert "no such token" in shell("token", "revoke", "bob", status=1).stderr


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["create"], 2),
        (["create", "a"], 2),
        (["revoke"], 2),
        (["create", "a", "--role", "root"], 2),
        (["create", "a", "--role", "caller", "--expires", "30"], 1),
        (["create", "a", "--role", "caller", "--expires", "0 s"], 1),
        (["create", "A B", "--role", "caller"], 1),
    ],
)
def test_wrong_usage_makes_nothing(shell, arguments, status):
    """Usage is told apart from a refusal."""
    shell("token", *arguments, status=status)

    assert [] == shell.json("token", "list")["tokens"]
