"""Running it: quotas, rates, the access log, /health and /metrics."""

from __future__ import annotations

import hashlib
import json
import shutil
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from cli_helpers import learners
from secondary_learners.server.app import Front
from secondary_learners.server.rates import Buckets
from secondary_learners.server.store.limits import Limits
from server_helpers import InProcess, running, token

CREATE = {"name": "mini", "organization": "team"}


class TestQuotas:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return tmp_path / "hub"

    def test_by_owner(self, root: Path) -> None:
        ann = token(root, "ann", "write", ["team"])
        limits = Limits(quota=10_000, quotas={"team": 50_000})
        with InProcess(root, limits) as hub:
            for organization, size in (("ann", 9_000), ("team", 49_000)):
                create = {"name": "r", "organization": organization}
                assert hub.ask("POST", "/api/repos/create", create, ann).status == 200
                name = f"{organization}/r"
                size -= 2_000  # .gitattributes
                assert hub.commit(ann, {"a.txt": b"x" * size}, name).status == 200
                assert "actions" in self.batch(hub, ann, name, 500)["objects"][0]
                over = hub.commit(ann, {"b.txt": b"y" * size}, name)
                assert over.status == 403 and "may store" in over.json()["error"]
                assert hub.ask("GET", f"/{name}/resolve/main/b.txt").status == 404

    def batch(self, hub: InProcess, token: str, name: str, size: int) -> Any:
        body = {"operation": "upload", "objects": [{"oid": "ab" * 32, "size": size}]}
        return hub.ask("POST", f"/{name}.git/info/lfs/objects/batch", body, token).json()

    def test_before_the_bytes_are_sent(self, root: Path) -> None:
        ann = token(root, "ann", "write")
        with InProcess(root, Limits(quota=10_000)) as hub:
            assert hub.ask("POST", "/api/repos/create", {"name": "r"}, ann).status == 200
            assert "may store" in self.batch(hub, ann, "ann/r", 9_500)["error"]

    def test_a_link_that_was_given_before_is_no_way_around(self, root: Path) -> None:
        ann = token(root, "ann", "write")
        with InProcess(root, Limits(quota=100_000)) as hub:
            assert hub.ask("POST", "/api/repos/create", {"name": "r"}, ann).status == 200
            links = []
            for letter in "abc":
                data = letter.encode() * 40_000
                sha256 = hashlib.sha256(data).hexdigest()
                body = {"operation": "upload", "objects": [{"oid": sha256, "size": len(data)}]}
                batch = hub.ask("POST", "/ann/r.git/info/lfs/objects/batch", body, ann)
                href = batch.json()["objects"][0]["actions"]["upload"]["href"]
                links.append((href.removeprefix("http://hub.test"), data))
            statuses = [hub.ask("PUT", href, data).status for href, data in links]
            assert statuses == [200, 200, 403]

    def test_what_is_deleted_no_longer_counts(self, root: Path) -> None:
        ann = token(root, "ann", "write")
        with InProcess(root, Limits(quota=10_000)) as hub:
            for number in range(5):
                body = {"name": f"r{number}"}
                assert hub.ask("POST", "/api/repos/create", body, ann).status == 200
                data = {"a.txt": bytes([65 + number]) * 8_000}
                assert hub.commit(ann, data, f"ann/r{number}").status == 200
                assert hub.ask("DELETE", "/api/repos/delete", body, ann).status == 200

    @pytest.mark.parametrize("text", ["x", "=5", "team=", "team=x", "-1", "nan", "1e999"])
    def test_what_is_not_a_quota(self, tmp_path: Path, text: str) -> None:
        result = learners("serve", tmp_path / "hub", f"--quota={text}")
        assert result.code == 2 and "OWNER=GB" in result.err


class TestRates:
    def test_a_bucket_fills_as_time_goes(self) -> None:
        now = [0.0]
        buckets = Buckets(60, lambda: now[0])
        assert [buckets.take("a") for _ in range(60)] == [0.0] * 60
        assert buckets.take("a") == 1.0
        assert buckets.take("b") == 0.0
        now[0] = 2.0
        assert [bool(buckets.take("a")) for _ in range(3)] == [False, False, True]

    def test_what_is_remembered_has_a_ceiling(self) -> None:
        now = [0.0]
        buckets = Buckets(60, lambda: now[0])
        for number in range(25_000):
            buckets.take(number)
        assert len(buckets._buckets) <= 10_000

    def test_who_asks_too_often_waits(self, tmp_path: Path) -> None:
        ann = token(tmp_path / "hub", "ann", "read")
        with InProcess(tmp_path / "hub", front=Front(requests_per_minute=20)) as hub:
            statuses = [hub.ask("GET", "/api/models").status for _ in range(25)]
            assert statuses[:20] == [200] * 20 and 429 in statuses[20:]
            assert hub.ask("GET", "/api/models", token=ann).status == 200  # counted by itself
            late = hub.ask("GET", "/api/models")
            if late.status == 429:
                assert 1 <= int(late.headers["retry-after"]) <= 60

    def test_wrong_tokens_cannot_be_tried_without_end(self, tmp_path: Path) -> None:
        ann = token(tmp_path / "hub", "ann", "read")
        with InProcess(tmp_path / "hub", front=Front(requests_per_minute=1000)) as hub:
            statuses = [hub.ask("GET", "/api/whoami-v2", token=f"sl_{n}").status for n in range(60)]
            assert statuses[:30] == [401] * 30 and statuses[-20:] == [429] * 20
            assert hub.ask("GET", "/api/whoami-v2", token=ann).status == 429
            assert hub.ask("GET", "/api/models").status == 200


class TestObserving:
    def test_the_access_log(self, tmp_path: Path) -> None:
        log = tmp_path / "log" / "access.jsonl"
        ann = token(tmp_path / "hub", "ann", "write", ["team"])
        with InProcess(tmp_path / "hub", front=Front(access_log=log)) as hub:
            hub.ask("POST", "/api/repos/create", CREATE, ann)
            hub.upload(ann, b"\0large")
            hub.commit(ann, {"a.txt": b"small"})
            for _ in range(3):
                assert hub.ask("GET", "/team/mini/resolve/main/a.txt", token=ann).status == 200
            hub.ask("GET", "/api/models/team/no%0ane")
            log.rename(tmp_path / "rotated")  # as logrotate does
            hub.ask("GET", "/api/models")
        rows = [json.loads(line) for line in (tmp_path / "rotated").read_text().splitlines()]
        downloads = [row for row in rows if row["path"] == "/team/mini/resolve/main/a.txt"]
        assert [(row["status"], row["bytes"], row["method"]) for row in downloads] == [
            (200, 5, "GET")
        ] * 3
        assert len({row["token"] for row in downloads}) == 1 and downloads[0]["token"]
        assert rows[-1]["path"] == "/api/models/team/no%0ane" and rows[-1]["status"] == 404
        text = (tmp_path / "rotated").read_text()
        assert ann not in text and "signed" not in text
        assert len(log.read_text().splitlines()) == 1

    def test_metrics(self, hub: InProcess, ann: str) -> None:
        hub.ask("POST", "/api/repos/create", CREATE, ann)
        hub.commit(ann, {"a.txt": b"small"})
        hub.ask("GET", "/api/models/team/nothing")
        answer = hub.ask("GET", "/metrics")
        assert answer.status == 200
        lines = dict(
            line.rsplit(" ", 1)
            for line in answer.body.decode().splitlines()
            if not line.startswith("#")
        )
        assert lines['learners_requests_total{method="POST",status="200"}'] == "2"
        assert lines['learners_requests_total{method="GET",status="404"}'] == "1"
        assert lines["learners_repositories"] == "1"
        assert int(lines["learners_stored_bytes"]) > 1000
        assert lines['learners_request_seconds_bucket{le="+Inf"}'] == "3"
        assert lines["learners_damaged_objects"] == "0"
        assert int(lines["learners_received_bytes_total"]) > 100

    def test_metrics_are_not_for_strangers(self, hub: InProcess, ann: str) -> None:
        assert hub.ask("GET", "/metrics", client="10.0.0.7").status == 401
        assert hub.ask("GET", "/metrics", token=ann, client="10.0.0.7").status == 200

    def test_health(self, hub: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert hub.ask("GET", "/health").json() == {"status": "ok", "problems": []}
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
        full = hub.ask("GET", "/health")
        assert full.status == 503 and full.json()["problems"] == ["the disk is full"]


def test_from_the_command_line(tmp_path: Path) -> None:
    options = ("--quota", "5", "--quota", "team=0.001", "--requests-per-minute", "0")
    with running(tmp_path / "hub", *options, "--access-log", str(tmp_path / "log")) as server:
        with urllib.request.urlopen(f"{server.url}/health") as answer:
            assert answer.status == 200
        assert server.stop() == 0
    (row,) = (json.loads(line) for line in (tmp_path / "log").read_text().splitlines())
    assert (row["path"], row["status"], row["address"]) == ("/health", 200, "127.0.0.1")
