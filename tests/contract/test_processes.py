"""Processes of our own: none is mistaken for another, and each can be ended."""

from __future__ import annotations

from ml_control.local.processes import alive, end, spawn


def test_a_pid_that_was_given_away_again_is_not_touched(tmp_path):
    """Neither alive nor end takes a process with another start time for ours."""
    pid, started = spawn(["sleep", "60"], tmp_path / "log")

    end(pid, started - 100.0)

    assert not alive(pid, started - 100.0)
    assert alive(pid, started)
    end(pid, started)
    assert not alive(pid, started)


def test_a_process_that_ignores_sigterm_is_ended(tmp_path):
    """After the grace time SIGKILL ends what does not listen."""
    script = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True)\n"
    pid, started = spawn(["python3", "-c", script + "time.sleep(60)"], tmp_path / "log")
    while not (tmp_path / "log").read_text():
        assert alive(pid, started)

    end(pid, started, grace=0.2)

    assert not alive(pid, started)
