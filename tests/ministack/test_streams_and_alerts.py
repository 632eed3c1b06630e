"""Stream, alerts, metrics and alarms on the second emulator: what matters most of them."""

from __future__ import annotations

import pytest
import streams
from emulators import credentials, fresh_settings, ministack_url
from suites import contract
from test_alerts import Topic

from ml_control.aws.client import Clients
from ml_control.testing.account import allow_senders

for module, chosen in {
    "test_stream": [
        "test_what_one_client_puts_another_reads_in_order",
        "test_records_of_several_pipelines_do_not_mix",
        "test_what_is_not_reported_comes_again_at_once",
        "test_a_failed_record_holds_up_its_key_and_no_other",
        "test_poison_is_parked_at_once_and_blocks_nothing",
        "test_replayed_records_take_their_places_again",
    ],
    "test_alerts": ["test_everybody_is_told_the_whole_alert"],
    "test_alarms_metrics": [
        "test_samples_are_documents_of_the_embedded_metric_format",
        "test_a_group_that_was_removed_is_made_again",
        "test_alarms_are_read_by_name",
    ],
}.items():
    globals().update(contract(module, only=chosen, fixtures=["place", "way", "clients"]))


@pytest.fixture
def settings():
    """Settings of a project of this test's own."""
    with credentials("test"):
        yield fresh_settings(ministack_url())


def padded(params, **_):
    """ministack's sequence numbers have leading zeros, which AWS's have not, and it compares them
    as texts.
    """
    if "StartingSequenceNumber" in params:
        params["StartingSequenceNumber"] = params["StartingSequenceNumber"].zfill(30)
    return params


@pytest.fixture
def place(root, clock, settings, monkeypatch):
    """A stream on ministack."""
    monkeypatch.setattr(streams, "fresh_settings", lambda: settings)
    monkeypatch.setattr(streams, "credentials", lambda: credentials("test"))
    found = streams.Aws(root, clock)
    events = found.clients.client("kinesis").meta.events
    events.register("provide-client-params.kinesis.GetShardIterator", padded)
    yield found
    found.end()


@pytest.fixture
def way(file, settings):
    """A topic on ministack, with a queue that listens."""
    topic = Clients(settings).client("sns").create_topic(Name=settings.name("alerts"))
    found = Topic(file, settings.model_copy(update={"topic_arn": topic["TopicArn"]}))
    allow_senders(found.clients.client("sqs"), found.queue)
    return found


@pytest.fixture
def clients(settings):
    """Clients of an account without any part."""
    return Clients(settings)
