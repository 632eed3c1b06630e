"""What every way of telling people promises: at least once, whole, and without secrets."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from botocore.awsrequest import AWSResponse
from emulators import credentials, fresh_settings

from ml_control.aws.alerts import SnsAlerts
from ml_control.aws.client import Clients
from ml_control.errors import PlatformFailed, Retryable
from ml_control.local.alerts import LocalAlerts
from ml_control.ports import Alert
from ml_control.registry.alerts import Raised
from ml_control.services.alerts import attend, raise_alert
from ml_control.settings import AwsSettings

P = "flowers"
ALERT = Alert("id-1", "parked#2026-05-01", P, "parked", f"{P} 2026-05-01", "why", "what next", 12.5)
SECRET = "T0K3N"


class Hook:
    """A web server that takes alerts, and answers as it is told."""

    def __init__(self):
        self.answers, self.bodies = [], []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                hook.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(hook.answers.pop(0) if hook.answers else 200)
                self.end_headers()

            def log_message(self, *_):
                """Say nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/hooks/{SECRET}?key={SECRET}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def end(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def hook():
    """A webhook that listens."""
    found = Hook()
    yield found
    found.end()


@pytest.fixture
def file(tmp_path):
    """Where alerts are kept."""
    return tmp_path / "logs" / "alerts.jsonl"


def lines(file):
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def test_an_alert_is_a_line_and_is_kept_once(file):
    """Two clients send the same alert several times: one line, with all that it says."""
    one, other = LocalAlerts(file), LocalAlerts(file)
    for client in (one, other, one):
        client.send(ALERT)
    other.send(replace(ALERT, id="id-2", reason="ünï\ncödé" + "x" * 5000))

    assert asdict(ALERT) == lines(file)[0]
    assert ["id-1", "id-2"] == [line["id"] for line in lines(file)]
    assert 1000 == len(lines(file)[1]["reason"])
    assert 0o600 == file.stat().st_mode & 0o777


def test_many_processes_write_whole_lines(file):
    """Alerts of several processes at once are all there, each whole."""
    program = (
        "import sys\nfrom pathlib import Path\nfrom ml_control.local.alerts import LocalAlerts\n"
        "from ml_control.ports import Alert\nclient = LocalAlerts(Path(sys.argv[1]))\n"
        "for i in range(40):\n"
        "    client.send(Alert(f'{sys.argv[2]}-{i}', 'k', 'p', 'parked', 'o', 'r' * 900, 'n', 0))\n"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", program, str(file), str(number)])
        for number in range(3)
    ]
    assert [0, 0, 0] == [process.wait(60) for process in started]

    assert {f"{n}-{i}" for n in range(3) for i in range(40)} == {x["id"] for x in lines(file)}
    assert 120 == len(lines(file))


def test_a_torn_line_is_dropped_and_comes_again(file):
    """A writer that died in mid-line spoils neither its own alert nor the next one."""
    client = LocalAlerts(file)
    client.send(ALERT)
    whole = file.read_bytes()
    for end in range(len(whole)):
        file.write_bytes(whole[:end])
        client.send(ALERT)

        assert whole == file.read_bytes()


def test_the_webhook_gets_it_as_json(file, hook):
    """The alert is posted whole, after the file has it."""
    LocalAlerts(file, hook.address).send(ALERT)

    assert [asdict(ALERT)] == hook.bodies == lines(file)


@pytest.mark.parametrize("answer", [301, 404, 500])
def test_a_webhook_that_refuses_is_asked_again(file, hook, answer):
    """Any answer but success asks for another try, and the file has the alert already."""
    hook.answers = [answer]
    with pytest.raises(Retryable, match=str(answer)):
        LocalAlerts(file, hook.address).send(ALERT)
    LocalAlerts(file, hook.address).send(ALERT)

    assert (2, 1) == (len(hook.bodies), len(lines(file)))


@pytest.mark.parametrize("kind", ["refused", "unknown host", "no address"])
def test_the_address_is_never_told(file, hook, kind, caplog):
    """Neither errors nor logs nor a repr show more of a webhook than its host."""
    address = {
        "refused": hook.address,
        "unknown host": f"http://nowhere.invalid/{SECRET}",
        "no address": f"http://[{SECRET}",
    }[kind]
    hook.answers = [503]
    caplog.set_level(logging.DEBUG)
    said = ""
    try:
        client = LocalAlerts(file, address)
        said += repr(client)
        client.send(ALERT)
    except (Retryable, ValueError) as error:
        said += f"{error!r} {error} {error.__cause__}"

    assert SECRET not in said + caplog.text
    assert "Retryable" in said


def test_a_file_that_cannot_be_written_is_refused_with_the_words(tmp_path):
    """A full or missing disk is an error with its reason, not a silence."""
    (tmp_path / "logs").write_text("not a folder")

    with pytest.raises(PlatformFailed, match="could not be written"):
        LocalAlerts(tmp_path / "logs" / "alerts.jsonl").send(ALERT)


# Every way of telling, on every platform.


class Lines:
    """The local platform's: a file."""

    def __init__(self, file):
        self.file = file

    def client(self):
        return LocalAlerts(self.file)

    def told(self):
        return lines(self.file)


class Posts(Lines):
    """And its webhook."""

    def __init__(self, file, hook):
        super().__init__(file)
        self.hook = hook

    def client(self):
        return LocalAlerts(self.file, self.hook.address)

    def told(self):
        return self.hook.bodies


class Topic:
    """SNS on an emulator, with a queue that listens."""

    def __init__(self, file, settings, fifo=False):
        self.clients = Clients(settings)
        sns, sqs = self.clients.client("sns"), self.clients.client("sqs")
        topic, name, more = settings.topic_arn, settings.name("told"), {}
        if fifo:
            name, more = f"{name}.fifo", {"FifoTopic": "true"}
            topic = sns.create_topic(Name=name, Attributes=more)["TopicArn"]
            more = {"FifoQueue": "true"}
        self.queue = sqs.create_queue(QueueName=name, Attributes=more)["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=["QueueArn"])
        sns.subscribe(
            TopicArn=topic, Protocol="sqs", Endpoint=arn["Attributes"]["QueueArn"],
        )  # fmt: skip
        self.settings, self.file = settings.model_copy(update={"topic_arn": topic}), file

    def client(self):
        return SnsAlerts(Clients(self.settings), self.file)

    def received(self):
        sqs, found = self.clients.client("sqs"), []
        while messages := sqs.receive_message(
            QueueUrl=self.queue, MaxNumberOfMessages=10, WaitTimeSeconds=0
        ).get("Messages"):
            found += [json.loads(one["Body"]) for one in messages]
            for one in messages:
                sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=one["ReceiptHandle"])
        return found

    def told(self):
        return [json.loads(one["Message"]) for one in self.received()]


@pytest.fixture
def bare():
    """Settings of an account with nothing but a topic."""
    with credentials():
        settings = fresh_settings()
        topic = Clients(settings).client("sns").create_topic(Name=settings.name("alerts"))
        yield settings.model_copy(update={"topic_arn": topic["TopicArn"]})


@pytest.fixture(params=["file", "webhook", "sns", "sns without a topic"])
def way(request, file):
    """Each platform's ways of telling people."""
    if request.param == "file":
        return Lines(file)
    if request.param == "webhook":
        return Posts(file, request.getfixturevalue("hook"))
    if request.param == "sns":
        return Topic(file, request.getfixturevalue("bare"))
    found = Lines(file)
    found.client = lambda: SnsAlerts(Clients(AwsSettings(region="eu-west-1")), file)
    return found


def test_everybody_is_told_the_whole_alert(way):
    """By two clients, twice: at least once each, with everything but what is too long."""
    one, other = way.client(), way.client()
    long = replace(ALERT, id="id-2", reason="ünï\ncödé" + "x" * 5000)
    for client in (one, other):
        client.send(ALERT)
        client.send(long)

    told = {body["id"]: body for body in way.told()}

    assert {"id-1", "id-2"} == set(told)
    assert asdict(ALERT) == told["id-1"]
    assert long.reason[:1000] == told["id-2"]["reason"]


def test_subscribers_of_the_topic_can_filter(file, bare):
    """The kind and the pipeline are attributes; the subject is one line of plain text."""
    topic = Topic(file, bare)
    topic.client().send(replace(ALERT, object="ünï\nx" + "y" * 200))

    (told,) = topic.received()

    assert f"{P}: parked: ?n?x" == told["Subject"][: len(P) + 14]
    assert 100 == len(told["Subject"])
    values = {name: one["Value"] for name, one in told["MessageAttributes"].items()}
    assert {"kind": "parked", "pipeline": P} == values
    assert not file.exists()


def test_a_fifo_topic_tells_once(file, bare):
    """What is sent again within minutes is dropped by SNS itself."""
    topic = Topic(file, bare, fifo=True)
    for _ in range(3):
        topic.client().send(ALERT)

    assert [asdict(ALERT)] == topic.told()


@pytest.mark.parametrize("fifo", [False, True])
def test_an_alert_of_no_pipeline_is_told_too(file, bare, fifo):
    """Such as of messages that nobody could read: SNS refuses an empty attribute or group."""
    topic, nobodys = Topic(file, bare, fifo=fifo), replace(ALERT, pipeline="")

    topic.client().send(nobodys)

    assert [asdict(nobodys)] == topic.told()


@pytest.mark.parametrize("how", ["throttled", "unreachable", "no topic of that name"])
def test_a_topic_that_does_not_take_it_is_asked_again(file, bare, how):
    """Throttling and outages are ``Retryable``; a wrong name is told with the next step."""
    kind, settings = Retryable, bare.model_copy(update={"max_attempts": 1})
    if how == "unreachable":
        urls = {**settings.endpoint_urls, "sns": "http://127.0.0.1:9"}
        settings = settings.model_copy(update={"endpoint_urls": urls})
    if how == "no topic of that name":
        kind = PlatformFailed
        settings = settings.model_copy(update={"topic_arn": f"{settings.topic_arn}-not"})
    clients = Clients(settings)
    if how == "throttled":
        answer = AWSResponse("", 400, {}, None)
        answer._content = b"<ErrorResponse><Error><Code>Throttled</Code></Error></ErrorResponse>"
        answer._content = answer._content.replace(b"Throttled", b"Throttling")
        events = clients.client("sns").meta.events
        events.register("before-send.sns.Publish", lambda **_: answer)

    with pytest.raises(kind) as refused:
        SnsAlerts(clients, file).send(ALERT)

    assert refused.value.next


# The book of alerts, in the registry.


def raised(subject="2026-05-01", **fields):
    values = {"object": "o", "reason": "r", "next": "n", "at": 1.0, **fields}
    return Raised(pipeline=P, key=f"parked#{subject}", kind="parked", **values)


def test_a_trouble_is_told_once_as_long_as_it_lasts(registries):
    """Raised again and again by two clients it is one alert; after its end it is a new one."""
    one, other = (registry.alerts for registry in registries)
    assert [True, False, False] == [book.open_one(raised()) for book in (one, other, one)]
    (first,) = other.open(P)
    one.delivered(first)
    assert ([], [first.alert()]) == (other.unsent(P), [a.alert() for a in one.open(P)])

    other.clear(first)
    assert [] == one.open(P)
    assert one.open_one(raised(at=2.0))
    (second,) = other.unsent(P)
    assert (2, False) == (second.number, second.alert().id == first.alert().id)
    assert [] == one.open("another")


def test_an_alert_that_ended_before_it_was_sent_is_still_sent(registries):
    """Trouble that came and went is told: nobody saw it."""
    one, other = (registry.alerts for registry in registries)
    one.open_one(raised())
    other.clear(other.open(P)[0])

    assert ([], 1) == (one.open(P), len(one.unsent(P)))
    other.delivered(other.unsent(P)[0])
    assert [] == one.unsent(P)


def test_the_newest_comes_first(registries):
    """What happened last is what a person sees first."""
    one, other = (registry.alerts for registry in registries)
    for at in (1.0, 3.0, 2.0):
        one.open_one(raised(f"{at}", at=at))
    one.delivered(next(a for a in one.unsent(P) if a.at == 3.0))

    assert [3.0, 2.0, 1.0] == [alert.at for alert in other.open(P)]


def test_a_failed_delivery_never_breaks_a_tick_and_comes_again(home, hook, monkeypatch):
    """While the webhook is down the ticks go on, with growing waits; then it is told once."""
    monkeypatch.setenv("ML_CONTROL_ALERT_WEBHOOK", hook.address)
    platform, now = home.platform, 1_000_000.0
    clock = [now]
    monkeypatch.setattr(platform.registry, "clock", lambda: clock[0])
    monkeypatch.setattr(platform.registry.alerts, "_clock", lambda: clock[0])
    hook.answers = [500, 500]
    for _ in range(3):
        raise_alert(platform, "tumours", "endpoint", "tumours-a", "it is down", "look at it")

    sent = []
    for after in (0, 1, 4, 6, 7, 15, 17, 100):
        clock[0] = now + after
        sent.append(attend(platform, "tumours"))

    assert [0, 0, 0, 0, 0, 0, 1, 0] == sent
    assert 3 == len(hook.bodies)
    assert 1 == len({body["id"] for body in hook.bodies})
    assert 1 == len(lines(home.path / "logs" / "alerts.jsonl"))
    clock[0] = 0.0  # set back: what was put off is not put off for days
    raise_alert(platform, "tumours", "endpoint", "tumours-b", "it is down", "look at it")
    assert 1 == attend(platform, "tumours")
