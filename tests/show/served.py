"""The server of the page in this process, on a free port."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from gradatim.show import open_server
from gradatim.show.server import ShowServer


@contextmanager
def serving(*folders: Path) -> Iterator[ShowServer]:
    """The server of the runs in ``folders``, which answers until the block ends."""
    server = open_server(list(folders), 0)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
