"""An endpoint server under test, and how to talk to it."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time

import numpy as np
import xgboost

from ml_control.core.artifact import pack
from ml_control.core.digests import sha256

READ_SECONDS = 1.5
CSV = {"content-type": "text/csv"}
RECORDS = {"content-type": "application/x-recordio-protobuf"}
POST = ("POST", "/invocations")
GOOD = b"0.5,-1.25,\n1e-3,2,7\n"


class Served:
    """The server under test, and how to talk to it."""

    def __init__(self, folder, booster):
        self.folder, self.booster = folder, booster
        self.log = (folder / "server.log").open("wb")
        command = [sys.executable, "-m", "ml_control.serving.endpoint", "--dir", folder]
        self.process = subprocess.Popen(
            [*command, "--read-seconds", str(READ_SECONDS)], stderr=self.log
        )
        deadline = time.monotonic() + 60
        while not (folder / "server.json").exists():
            assert self.process.poll() is None, (folder / "server.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        self.record = json.loads((folder / "server.json").read_text())
        self.port = self.record["port"]

    def ask(self, method, path, headers=None, body=None):
        """(status, headers, body) of one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def raw(self, data, wait=10.0):
        """What comes back for bytes written as they are, until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=wait) as connection:
            connection.sendall(data)
            answer = b""
            while part := connection.recv(65536):
                answer += part
        return answer

    def check(self):
        """It is healthy and predicts what the booster predicts."""
        assert self.ask("GET", "/ping")[::2] == (200, b"")
        status, _, body = self.ask("POST", "/invocations", {"content-type": "text/csv"}, GOOD)
        assert status == 200
        want = np.array([[0.5, -1.25, np.nan], [1e-3, 2, 7]], dtype=np.float32)
        got = np.array(body.split(), dtype=np.float32)
        assert self.booster.predict(xgboost.DMatrix(want)).tobytes() == got.tobytes()


def deployment(folder, booster, **changes):
    """Write a deployment's files into a folder."""
    archive = pack(bytes(booster.save_raw("ubj")))
    record = {
        "name": "income-a",
        "model_version": "v1",
        "container": "3.2-0",
        "archive_sha256": sha256(archive),
        "instance": "i-1",
    }
    (folder / "model.tar.gz").write_bytes(archive)
    (folder / "deployment.json").write_text(json.dumps({**record, **changes}))
    return folder


def head(*lines, path="/invocations"):
    """The head of a POST of CSV, with these lines too."""
    return "\r\n".join(
        [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: text/csv", *lines, "\r\n"]
    ).encode()
