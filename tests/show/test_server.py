"""The server of the page: live, on the loopback interface only, and nothing for other pages."""

from __future__ import annotations

import html
import http.client
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from served import serving
from serving import served_until_interrupted

from gradatim.cli.main import main
from gradatim.errors import RunFolderError, UserError
from gradatim.inference.decode import complete
from gradatim.model.load import load_student
from gradatim.show import open_server
from gradatim.show.page import SCRIPTS
from gradatim.show.server import ShowServer
from gradatim.show.weights import pack


def request(server: ShowServer, path: str, method: str = "GET", body: Any = None, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, None if body is None else json.dumps(body), sent)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, content


def test_the_server_gives_page_students_and_nothing_else(finished):
    with serving(finished) as server:
        status, page = request(server, "/")
        assert status == 200
        assert "connect-src 'self'" in html.unescape(page.decode())
        assert b"data-student=" not in page.replace(b"script[data-student]", b"")
        model = finished / "cycle-00/stage-00-easy/model"
        assert request(server, "/students?key=hybrid/1/0/0") == (200, pack(model))
        assert request(server, "/students?key=../../etc/passwd")[0] == 400
        for path in ("/recipe.yaml", "/../show", "/assets/page.js", "/students/"):
            assert request(server, path)[0] == 404


def test_a_request_for_another_host_or_from_another_page_is_refused(finished):
    question = {"key": "hybrid/1/0/0", "prompt": "print(1)\n# output\n"}
    with serving(finished) as server:
        assert server.server_address[0] == "127.0.0.1"
        assert request(server, "/content", Host="attacker.example")[0] == 403
        assert request(server, "/ask", "POST", question, Content_Type="text/plain")[0] == 400
        foreign = request(
            server, "/ask", "POST", question, Content_Type="application/json", Origin="http://attacker.example"
        )
        assert foreign[0] == 400
        for broken in ([1], {"key": 3}, "x"):
            assert request(server, "/ask", "POST", broken, Content_Type="application/json")[0] == 400


def test_the_server_answers_for_students_that_the_page_cannot_compute(finished):
    prompt = "a = 4\nprint(a)\n# output\n"
    with serving(finished) as server:
        question = {"key": "hybrid/1/0/2", "prompt": prompt, "limit": 12}
        status, reply = request(server, "/ask", "POST", question, Content_Type="application/json")
        unknown = {**question, "prompt": "é\n"}
        refused = request(server, "/ask", "POST", unknown, Content_Type="application/json")
    assert refused == (400, b"the program has a character that the student has no token for")
    assert status == 200
    tokens = json.loads(reply)["tokens"]
    student = load_student(next(finished.glob("cycle-00/stage-02*/model")))
    expected = complete(student.model, student.tokenizer, [prompt], limits=12)[0]
    assert "".join(token["text"] for token in tokens) == expected.text
    assert all(0 < token["probability"] <= 1 and token["top"][0]["text"] == token["text"] for token in tokens)


def test_a_stage_that_ends_while_the_page_is_open_appears(run):
    last = next(run.glob("cycle-00/stage-02*"))
    aside = run.parent / "aside"
    shutil.move(last, aside)
    (run / "finished.json").rename(run.parent / "finished.json")
    with serving(run) as server:
        before = json.loads(request(server, "/state")[1])["version"]
        assert json.loads(request(server, "/state")[1])["version"] == before
        first = json.loads(request(server, "/content")[1])
        assert "in progress" in first["overview"]
        assert len(first["data"]["runs"][0]["stages"]) == 2
        assert first["data"]["complete"] is False
        shutil.move(aside, last)
        (run.parent / "finished.json").rename(run / "finished.json")
        assert json.loads(request(server, "/state")[1])["version"] != before
        second = json.loads(request(server, "/content")[1])
        assert len(second["data"]["runs"][0]["stages"]) == 3
        assert second["data"]["complete"] is True
        (run / "cycle-00" / "table.json").write_text("{")
        (run / "metrics.jsonl").write_text("")
        assert request(server, "/content")[0] == 200  # a damaged file is a note


def test_no_other_machine_is_named_in_the_scripts():
    folder = Path(sys.modules["gradatim.show.page"].__file__ or "").parent / "assets"
    for name in SCRIPTS:
        assert "://" not in (folder / name).read_text("utf-8")


def test_a_port_in_use_and_a_folder_without_a_run_are_one_line(finished, tmp_path, capfd):
    with serving(finished) as server:
        port = server.server_address[1]
        with pytest.raises(UserError, match="the port is in use"):
            open_server([finished], port)
        assert main(["show", str(finished), "--port", str(port), "--no-browser"]) == 2
    assert capfd.readouterr().err.splitlines() == [
        f"gradatim: --port: the port is in use; given: {port}; try: --port 0 takes a free one"
    ]
    with pytest.raises(RunFolderError, match="no run"):
        open_server([tmp_path], 0)


def test_the_page_is_written_to_a_file_and_replaces_no_other(finished, tmp_path, capfd):
    out = tmp_path / "page.html"
    assert main(["show", str(finished), "--out", str(out)]) == 0
    assert main(["show", str(finished), "--out", str(out)]) == 0
    out.write_text("mine")
    assert main(["show", str(finished), "--out", str(out)]) == 2
    assert out.read_text() == "mine"
    assert "not written by this command" in capfd.readouterr().err


def test_the_command_serves_until_it_is_interrupted(finished):
    assert served_until_interrupted(["show", str(finished), "--port", "0", "--no-browser"]) == 0
