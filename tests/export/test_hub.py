"""Uploads against a local server that speaks the hub's API; the real hub cannot be reached from the build machines."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import huggingface_hub.constants
import pytest
from huggingface_hub import hf_api

from gradatim.errors import UserError, WorkFailed
from gradatim.export import hub


@dataclass
class Hub:
    """Repositories in memory: creation, the choice between plain and large files, and commits."""

    address: str = ""
    repositories: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    refusal: int = 0


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if hub.refusal:
                self.reply(hub.refusal, {"error": "refused"})
            elif self.path == "/api/repos/create":
                wanted = json.loads(body)
                name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
                hub.repositories[name] = wanted
                self.reply(200, {"url": f"{hub.address}/{name}", "id": name, "name": name})
            elif re.fullmatch(r"/api/models/[^/]+/[^/]+/preupload/main", self.path):
                files = json.loads(body)["files"]
                modes = [
                    {"path": file["path"], "uploadMode": "lfs" if file["size"] > 1000 else "regular"} for file in files
                ]
                self.reply(200, {"files": [{**mode, "shouldIgnore": False, "oid": None} for mode in modes]})
            elif self.path.endswith(".git/info/lfs/objects/batch"):
                objects = [
                    {
                        "oid": file["oid"],
                        "size": file["size"],
                        "actions": {"upload": {"href": f"{hub.address}/objects/{file['oid']}", "header": {}}},
                    }
                    for file in json.loads(body)["objects"]
                ]
                self.reply(200, {"transfer": "basic", "objects": objects})
            elif re.fullmatch(r"/api/models/[^/]+/[^/]+/commit/main", self.path):
                for line in map(json.loads, body.splitlines()):
                    value = line["value"]
                    if line["key"] == "file":
                        hub.files[value["path"]] = base64.b64decode(value["content"])
                    elif line["key"] == "lfsFile":
                        hub.files[value["path"]] = hub.objects[value["oid"]]
                name = self.path.split("/models/")[1].removesuffix("/commit/main")
                address = f"{hub.address}/{name}/commit/{'0' * 40}"
                commit = {"commitOid": "0" * 40, "commitUrl": address, "pullRequestUrl": None}
                self.reply(200, {"success": True, **commit})
            elif self.path == "/api/validate-yaml":
                self.reply(200, {"errors": [], "warnings": []})
            else:
                self.reply(404, {"error": self.path})

        def do_GET(self) -> None:
            self.reply(200, {"id": "me/student", "sha": "0" * 40, "siblings": [], "tags": []})

        def do_PUT(self) -> None:
            content = self.rfile.read(int(self.headers.get("content-length", 0)))
            hub.objects[hashlib.sha256(content).hexdigest()] = content
            self.reply(200, {})

        def reply(self, status: int, content: Any) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: Any) -> None:
            pass

    return Handler


@pytest.fixture
def fake(monkeypatch) -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    for module in (huggingface_hub.constants, hf_api.constants):
        monkeypatch.setattr(module, "ENDPOINT", hub.address)
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(module, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    yield hub
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "README.md").write_text("# Student\n")
    (tmp_path / "model.safetensors").write_bytes(bytes(range(256)) * 8)
    return tmp_path


def test_a_folder_is_uploaded_to_a_private_repository(fake, folder):
    assert hub.push(folder, "me/student") == f"{fake.address}/me/student"
    assert fake.repositories["me/student"]["visibility"] == "private"
    assert fake.files == {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_refusal_of_the_hub_is_one_line_and_keeps_the_folder(fake, folder):
    fake.refusal = 403
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(WorkFailed, match=r"--push: .* is written but not uploaded.*hf upload me/student"):
        hub.push(folder, "me/student")
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_a_hub_that_cannot_be_reached_is_one_line(fake, folder, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WorkFailed, match="not uploaded"):
        hub.push(folder, "me/student")


@pytest.mark.parametrize("name", ["a/b/c", "..", "me/student name", "-me", ""])
def test_a_name_that_no_hub_accepts_is_refused_before_the_work(name):
    with pytest.raises(UserError, match=r"--push: this is no name of a model on the hub.*OWNER/NAME"):
        hub.check_name(name)
