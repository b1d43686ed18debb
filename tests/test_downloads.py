"""Cutouts from a service that is not always well: a server of our own, with faults on demand."""

from __future__ import annotations

import io
import json
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
import PIL.Image
import pyarrow.csv
import pytest

from tinsley.cli.main import run
from tinsley.errors import InputError
from tinsley.io.downloads import Cutouts, Manners, Targets, download_cutouts, read_targets
from tinsley.io.images import find_form, load_images, open_images
from tinsley.io.results import write_csv

QUICK = Manners(rate_hz=1000.0, attempts=3, pause_s=0.01, timeout_s=1.0)
PIXELS = 32


def picture(ra: float, side: int) -> bytes:
    """A JPEG that differs from place to place."""
    noise = np.random.default_rng(int(ra * 1e4)).integers(0, 200, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(noise).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


class Service:
    """What the server was asked, and how it is to fail: fault[ra] = [answers in order]."""

    def __init__(self) -> None:
        self.asked: Counter[float] = Counter()
        self.faults: dict[float, list[str]] = {}
        self.agents: set[str] = set()
        self.queries: list[dict[str, list[str]]] = []


@pytest.fixture
def service():
    told = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            told.queries.append(query)
            told.agents.add(self.headers["User-Agent"])
            ra = float(query["ra"][0])
            faults = told.faults.get(ra, [])
            fault = faults[min(told.asked[ra], len(faults) - 1)] if faults else ""
            told.asked[ra] += 1
            self.answer(fault, picture(ra, int(query["width"][0])), ra)

        def answer(self, fault: str, body: bytes, ra: float) -> None:
            if fault.isdecimal():
                self.send_response(int(fault))
                self.send_header("Retry-After", "0")
                self.end_headers()
                return
            edits = {"html": b"<html>busy</html>", "small": picture(ra, 16), "short": body[:-500]}
            sent = edits.get(fault, body)
            length = len(body) if fault == "cut" else len(sent)
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(sent[: length // 2] if fault == "cut" else sent)

        def log_message(self, *words) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        told.url = f"http://127.0.0.1:{server.server_port}/getjpeg"
        yield told
        server.shutdown()
        thread.join()


def targets(n: int) -> Targets:
    return Targets(
        np.array([f"g{i}" for i in range(n)]), np.arange(n) + 10.0, np.linspace(-5, 5, n)
    )


def fetch(service, out, n=3, manners=QUICK):
    return download_cutouts(targets(n), out, Cutouts(PIXELS, 0.396, service.url), manners)


def test_cutouts_are_what_the_service_sent(service, tmp_path):
    assert fetch(service, tmp_path) == {"ok": 3}
    for i in range(3):
        assert (tmp_path / f"g{i}.jpg").read_bytes() == picture(10.0 + i, PIXELS)
    query = service.queries[0]
    assert query == {"ra": ["10.0000000"], "dec": ["-5.0000000"], "scale": ["0.396"],
                     "width": ["32"], "height": ["32"]}  # fmt: skip
    assert all(agent.startswith("tinsley/") for agent in service.agents)
    source = open_images(tmp_path)
    read = load_images(source, ["g0", "g1"], find_form(source, ["g0"]))
    assert read.status.tolist() == ["", ""]


@pytest.mark.parametrize("fault", ["500", "503", "429", "cut", "short", "html"])
def test_what_may_do_better_is_asked_for_again(fault, service, tmp_path):
    service.faults[11.0] = [fault, fault, ""]
    assert fetch(service, tmp_path) == {"ok": 3}
    assert service.asked == {10.0: 1, 11.0: 3, 12.0: 1}
    assert (tmp_path / "g1.jpg").read_bytes() == picture(11.0, PIXELS)


@pytest.mark.parametrize(
    ("fault", "word", "asked", "why"),
    [
        ("404", "no_image", 1, "HTTP 404"),
        ("small", "no_image", 1, "16 x 16"),
        ("cut", "failed", 3, "cut short"),
        ("500", "failed", 3, "HTTP 500"),
        ("html", "failed", 3, "not a whole JPEG"),
    ],
)
def test_a_galaxy_without_a_cutout_does_not_stop_the_others(
    fault, word, asked, why, service, tmp_path
):
    service.faults[11.0] = [fault]
    assert fetch(service, tmp_path) == {"ok": 2, word: 1}
    assert service.asked[11.0] == asked
    assert not list(tmp_path.glob("g1*"))
    failed = pyarrow.csv.read_csv(tmp_path / "failed.csv").to_pylist()
    assert [(row["object_id"], row["status"]) for row in failed] == [("g1", word)]
    assert why in failed[0]["reason"]


def test_going_on_fetches_only_what_is_lacking_or_damaged(service, tmp_path):
    service.faults[12.0] = ["500"]
    fetch(service, tmp_path, 4)
    service.faults.clear()
    service.asked.clear()
    (tmp_path / "g0.jpg").write_bytes(b"damaged")
    lines = (tmp_path / "manifest.jsonl").read_text()
    (tmp_path / "manifest.jsonl").write_text(lines[:-20])  # a kill in the last line, of g3
    assert fetch(service, tmp_path, 4) == {"ok": 4}
    assert service.asked == {10.0: 1, 12.0: 1, 13.0: 1}
    assert fetch(service, tmp_path, 4) == {"ok": 4}
    assert service.asked.total() == 3
    entries = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()
               if line.endswith("}")]  # fmt: skip
    assert {entry["object_id"] for entry in entries} == {"g0", "g1", "g2", "g3"}
    with pytest.raises(InputError, match="holds cutouts of"):
        download_cutouts(targets(4), tmp_path, Cutouts(64, 0.396, service.url), QUICK)


def test_the_rate_is_kept(service, tmp_path):
    begun = time.monotonic()
    fetch(service, tmp_path, 5, Manners(rate_hz=20.0))
    assert time.monotonic() - begun >= 4 / 20.0


def test_a_pause_grows(service, tmp_path):
    service.faults[10.0] = ["500", "500", ""]
    begun = time.monotonic()
    fetch(service, tmp_path, 1, Manners(rate_hz=1000.0, pause_s=0.1))
    assert time.monotonic() - begun >= 0.1 + 0.2


def test_a_dead_service_is_left_alone(service, tmp_path):
    dead = service.url.replace("/getjpeg", "").rsplit(":", 1)[0] + ":9/getjpeg"
    wanted = Cutouts(PIXELS, 0.396, dead)
    manners = Manners(rate_hz=1e4, attempts=1, pause_s=0.0, timeout_s=0.5)
    with pytest.raises(InputError, match="has not answered for 10 galaxies in a row"):
        download_cutouts(targets(50), tmp_path / "o", wanted, manners)
    with pytest.raises(InputError, match="no web address"):
        download_cutouts(targets(1), tmp_path / "p", Cutouts(service="file:///etc"), QUICK)


def test_a_place_that_is_none_is_not_asked_for(service, tmp_path):
    places = Targets(np.array(["a", "b"]), np.array([np.nan, 10.0]), np.array([0.0, 95.0]))
    counts = download_cutouts(places, tmp_path, Cutouts(PIXELS, 0.396, service.url), QUICK)
    assert counts == {"bad_input": 2}
    assert not service.asked


def test_the_command(service, tmp_path, monkeypatch, capsys):
    names = np.array([1237648702973411443, 1237648702994383943])
    write_csv(tmp_path / "t.csv", {"objID": names, "RA": np.array([1.0, 2.0]), "Dec": np.ones(2)})
    words = ["download", "cutouts", tmp_path / "t.csv", "--out", tmp_path / "o"]
    words += ["--pixels", 32, "--rate", 10, "--service", service.url]
    monkeypatch.setattr(sys, "argv", ["tinsley", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        run()
    assert not stop.value.code
    assert "2 ok" in capsys.readouterr().err
    assert {path.stem for path in (tmp_path / "o").glob("*.jpg")} == set(names.astype(str))


def test_tables_that_will_not_do(tmp_path):
    write_csv(tmp_path / "a.csv", {"object_id": np.arange(2), "ra": np.ones(2)})
    with pytest.raises(InputError, match="no column dec"):
        read_targets(tmp_path / "a.csv")
    columns = {"object_id": np.array(["../x"]), "ra": np.ones(1), "dec": np.ones(1)}
    write_csv(tmp_path / "b.csv", columns)
    with pytest.raises(InputError, match="can not be the name of a file"):
        read_targets(tmp_path / "b.csv")
