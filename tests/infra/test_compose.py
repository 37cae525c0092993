"""What the compose file describes, really run: healthy, connected, and closed to whoever has no key."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from .composed import Composed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def answer(address: str, *, method: str = "GET", user: str = "", body: bytes | None = None) -> int:
    """The status that a server answers with."""
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"}, method=method)
    if user:
        request.add_header("Authorization", f"Basic {base64.b64encode(user.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=30) as said:
            return int(said.status)
    except urllib.error.HTTPError as error:
        return error.code


def run(whole: Composed, code: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Python with what a worker knows."""
    told = whole.programs() | whole.environment("worker") | more
    return subprocess.run([sys.executable, "-c", code], env=told, capture_output=True, text=True, check=False)


def test_the_servers_ask_who_comes(whole: Composed) -> None:
    prefect = f"http://127.0.0.1:{whole.port('4200')}/api/flows/filter"
    assert answer(prefect, method="POST", body=b"{}") == 401
    assert answer(prefect, method="POST", body=b"{}", user="geossl:wrong") == 401
    assert answer(prefect, method="POST", body=b"{}", user=whole.secrets["PREFECT_API_AUTH_STRING"]) == 200
    mlflow = f"http://127.0.0.1:{whole.port('5000')}/api/2.0/mlflow/experiments/search?max_results=1"
    assert answer(mlflow) == 401
    assert answer(mlflow, user="geossl:wrong") == 401
    assert answer(mlflow, user=f"geossl:{whole.secrets['MLFLOW_TRACKING_PASSWORD']}") == 200
    assert answer(f"http://127.0.0.1:{whole.port('9000')}/geossl", method="PUT") == 403
    assert answer(f"http://127.0.0.1:{whole.port('9000')}/geossl/a", method="PUT", body=b"a") == 403


def test_pages_of_others_may_not_speak_to_the_server(whole: Composed) -> None:
    port = whole.port("4200")
    for origin, allowed in (
        (f"http://127.0.0.1:{port}", True),
        (f"http://localhost:{port}", True),
        ("https://x.org", False),
    ):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/api/health", headers={"Origin": origin})
        with urllib.request.urlopen(request, timeout=30) as said:
            assert (said.headers["Access-Control-Allow-Origin"] == origin) is allowed


def test_the_database_asks_for_a_password_on_every_address(whole: Composed) -> None:
    asked = os.environ | {"PGHOST": "127.0.0.1", "PGPORT": str(whole.port("5432")), "PGUSER": "geossl"}
    command = ["psql", "-X", "-w", "-t", "-A", "-d", "prefect", "-c", "select count(*) from flow"]
    assert "no password supplied" in subprocess.run(command, env=asked, capture_output=True, text=True).stderr
    told = asked | {"PGPASSWORD": whole.secrets["POSTGRES_PASSWORD"]}
    assert subprocess.run(command, env=told, capture_output=True, text=True, check=True).stdout.strip().isdigit()


def test_dask_answers_those_only_who_have_a_certificate(whole: Composed) -> None:
    port = whole.port("8786")
    code = "from distributed import Client\nwith Client('{}', timeout=20) as client: print(client.submit(sum, [1, 2]).result(60))"
    assert run(whole, code.format(f"tls://127.0.0.1:{port}")).stdout.strip() == "3"
    assert run(whole, code.format(f"tcp://127.0.0.1:{port}")).returncode != 0
    bare = {name: "" for name in whole.environment("worker") if name.startswith("DASK_")}
    assert run(whole, code.format(f"tls://127.0.0.1:{port}"), **bare).returncode != 0


def test_the_bucket_orders_commits(whole: Composed) -> None:
    code = "from geossl.cube.repository import Cube; print(Cube.create('s3://geossl/cube').snapshot())"
    done = run(whole, code)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip()) == 20


def test_nothing_is_said_on_a_command_line(whole: Composed) -> None:
    said = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    hidden = [value for name, value in whole.secrets.items() if "PASSWORD" in name or "SECRET" in name]
    assert len(hidden) >= 4
    assert not [value for value in hidden if value in said]
