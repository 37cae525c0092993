"""Messages to real sinks on loopback: told once, told when it is over, never lost, never an address in a log."""

from __future__ import annotations

import email
import email.policy
import logging
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from geossl.project import notify
from geossl.project.notify import ADDRESSES, Condition
from geossl.project.project import Project

from .conftest import SECRET, Hook


@pytest.fixture
def mailbox() -> Iterator[tuple[int, list[email.message.EmailMessage]]]:
    """A mail server (RFC 5321, as much as a client needs): its port, and the letters it got."""
    letters: list[email.message.EmailMessage] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.say("220 sink")
            for line in iter(self.rfile.readline, b""):
                verb = line[:4].upper()
                if verb == b"DATA":
                    self.say("354 go on")
                    text = b"".join(iter(self.rfile.readline, b".\r\n"))
                    letters.append(email.message_from_bytes(text, policy=email.policy.default))
                self.say("221 bye" if verb == b"QUIT" else "250 sink" if verb == b"EHLO" else "250 ok")
                if verb == b"QUIT":
                    return

        def say(self, text: str) -> None:
            self.wfile.write(text.encode() + b"\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], letters
        server.shutdown()


@pytest.fixture
def project(tmp_path: Path, hook: Hook, monkeypatch: pytest.MonkeyPatch) -> Project:
    (tmp_path / "geossl.yaml").write_text("name: amazon\nsources: [{kind: folder, path: imagery}]\n")
    (tmp_path / "store").mkdir()
    monkeypatch.setenv(ADDRESSES, hook.address)
    return Project.load(tmp_path)


def held(*scenes: str) -> Condition:
    return Condition("held", "", f"{len(scenes)} scenes are held", "look at them", frozenset(scenes))


def test_what_lasts_is_told_once_then_its_news_then_its_end(project: Project, hook: Hook) -> None:
    notify.tell(project, [held("a")])
    assert hook.titles() == ["geossl amazon: 1 scenes are held"]
    for _ in range(3):
        notify.tell(project, [held("a")])
    assert hook.titles() == []
    notify.tell(project, [held("a", "b")])
    assert hook.titles() == ["geossl amazon: 2 scenes are held"]
    notify.tell(project, [held("b")])  # one was released
    assert hook.titles() == []
    [now] = notify.open_conditions(project)
    assert now["title"] == "1 scenes are held"
    notify.tell(project, [])
    assert hook.titles() == ["geossl amazon: over: 1 scenes are held"]
    notify.tell(project, [])
    assert hook.titles() == []
    assert notify.open_conditions(project) == []
    notify.tell(project, [held("b")])
    assert hook.titles() == ["geossl amazon: 1 scenes are held"], "it began anew"


def test_a_failure_lasts_until_the_same_succeeds(project: Project, hook: Hook) -> None:
    notify.failed(project, "geossl-ingest", "cannot read /data/a1.tif: 17 bytes")
    notify.failed(project, "geossl-ingest", "cannot read /data/b2.tif: 18 bytes")
    notify.failed(project, "geossl-publish", "disk full")
    assert hook.titles() == ["geossl amazon: geossl-ingest failed", "geossl amazon: geossl-publish failed"]
    notify.failed(project, "geossl-ingest", "permission denied")
    assert hook.titles() == ["geossl amazon: geossl-ingest failed"]
    notify.tell(project, [])  # says nothing of failures
    notify.succeeded(project, "geossl-retrain")
    assert hook.titles() == []
    notify.succeeded(project, "geossl-ingest")
    assert hook.titles() == ["geossl amazon: over: geossl-ingest failed"]
    assert [each["what"] for each in notify.open_conditions(project)] == ["geossl-publish"]


def test_what_could_not_be_sent_is_sent_later_and_no_secret_is_logged(
    project: Project, hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hook.answer = 500
    notify.tell(project, [held("a")])
    assert "could not be told" in caplog.text
    hook.answer = 200
    notify.tell(project, [held("a")])
    assert hook.titles() == ["geossl amazon: 1 scenes are held"]
    hook.answer = 500
    notify.tell(project, [])
    hook.answer = 200
    notify.tell(project, [])
    assert hook.titles() == ["geossl amazon: over: 1 scenes are held"]
    written = [path.read_text() for path in project.root.rglob("*") if path.is_file()]
    assert SECRET not in caplog.text + "".join(written)


def test_one_address_that_is_wrong_or_dead_does_not_keep_others_from_it(
    project: Project, hook: Hook, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(ADDRESSES, f"nonsense://{SECRET} json://127.0.0.1:1/{SECRET} {hook.address}")
    assert notify.notify(project, "failed", "t", f"see https://user:{SECRET}@host/a.tif?sig={SECRET} for more")
    [message] = hook.messages
    assert message["message"] == "see https://host/a.tif for more"
    assert "address 1 of 3 in GEOSSL_NOTIFY" in caplog.text
    assert "address 2 of 3 in GEOSSL_NOTIFY" in caplog.text
    assert SECRET not in caplog.text
    monkeypatch.delenv(ADDRESSES)
    assert not notify.notify(project, "failed", "t", "nobody is to be told")


def test_by_e_mail(
    project: Project, mailbox: tuple[int, list[email.message.EmailMessage]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, letters = mailbox
    monkeypatch.setenv(
        ADDRESSES, f"mailto://127.0.0.1:{port}?from=geossl@example.org&to=desk@example.org&mode=insecure"
    )
    notify.failed(project, "geossl-ingest", "the disk is full")
    [letter] = letters
    assert letter["Subject"] == "geossl amazon: geossl-ingest failed"
    assert "desk@example.org" in letter["To"]
    body = letter.get_body(("plain",))
    assert body is not None
    assert "the disk is full" in body.get_content()


KILLED = """
import os, signal, sys
from pathlib import Path
from geossl.project import notify
from geossl.project.project import Project
real = notify.notify
def killed(*args):
    if "before" in sys.argv: os.kill(os.getpid(), signal.SIGKILL)
    real(*args)
    os.kill(os.getpid(), signal.SIGKILL)
notify.notify = killed
notify.failed(Project.load(Path(sys.argv[1])), "geossl-map", "broken")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("when", "told"), [("before", 1), ("after", 2)])
def test_killed_around_sending_nothing_is_lost(project: Project, hook: Hook, when: str, told: int) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(project.root), when], env=os.environ, check=False)
    assert done.returncode == -9
    notify.tell(project, [])
    notify.tell(project, [])
    assert hook.titles() == ["geossl amazon: geossl-map failed"] * told
