"""Dagster and the command line at once on one partition: one works, the other is told by whom."""

from __future__ import annotations

import subprocess
import sys

from drilling import DAYS, NAME, PATIENCE

DAY = DAYS[0]
STAGE = f"partition {DAY}"
JOB = ["dagster", "job", "execute", "-m", "ml_control.definitions", "-j", f"{NAME}__ingest"]
JOB += ["--tags", f'{{"dagster/partition": "{DAY}"}}']
RUN = ["run", NAME, "--partition", DAY]
IN_LEASE = {"at": "registry.ledger.claim", "when": "after"}


def test_a_command_is_refused_while_dagster_ingests_the_partition(empty, tables):
    """``ml-control run`` ends with status 1 and a Conflict that names Dagster's run, and trains on
    nothing; that run then finishes, and every object is accounted for.
    """
    home = empty
    home.land(f"dt={DAY}/tumours.csv", tables[DAY])
    home.do([["take_in"]])
    dagster = home.stopped([JOB], **IN_LEASE)
    holder = home.registry.leases.holder(NAME, STAGE).holder

    code, _, said = home.command(*RUN)

    assert 1 == code, said
    assert f"Conflict: {NAME} {STAGE}: is being changed by {holder}" in said
    assert "next: " in said
    assert home.registry.partitions.get(NAME, DAY).raw is None
    dagster.go()
    assert "done" in dagster.answer()
    assert holder == home.registry.partitions.get(NAME, DAY).processed.run
    home.check_ledger()


def test_a_run_of_dagster_is_refused_while_a_command_ingests_the_partition(published, tables):
    """Dagster's run fails with a Conflict that names the command's run; the command is killed, and
    the next run takes in everything that it had claimed.
    """
    home = published
    home.land(f"dt={DAY}/more.csv", tables[DAYS[1]])
    command = home.stopped([["cli", *RUN]], **IN_LEASE)
    holder = home.registry.leases.holder(NAME, STAGE).holder
    lasting, before = home.lasting(), home.state()["partitions"]

    done = subprocess.run(
        [sys.executable, "-m", *JOB],
        env={**home.environment, "DAGSTER_HOME": str(home.folder / "dagster")},
        cwd=home.folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    said = done.stdout + done.stderr
    assert 0 != done.returncode, said
    assert f"Conflict: {NAME} {STAGE}: is being changed by {holder}" in said
    assert before == home.state()["partitions"]
    command.kill()
    home.check_intact(lasting)
    home.do([["ingest"]])
    home.check_ledger()
