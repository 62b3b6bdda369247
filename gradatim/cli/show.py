"""``gradatim show``: runs in the browser, from a local server or as one file."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from .. import show as show_package
from ..errors import UserError
from ..files import check_output
from .output import output

SHOW_EXAMPLES = (
    "gradatim show runs/demo",
    "gradatim show runs/a runs/b --port 8080 --no-browser",
    "gradatim show runs/demo --out demo.html",
)


def show(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run or study folders, finished or not.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1 (0: any free one).")] = 7860,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
    out: Annotated[
        Path | None, typer.Option(help="Write the page with its students to one HTML file instead; it needs no server.")
    ] = None,
) -> None:
    """Show runs in the browser: stages, what was learnt, and a playground.

    The page follows runs that still train. It is served on this machine only, until Ctrl-C. Run folders are only read.
    """
    if out is not None:
        if out.is_dir():
            raise UserError("the page is a file, not a folder", where="--out", given=out, hint=f"{out / 'page.html'}")
        check_output(out, "--out", ours=show_package.is_page)
        path = show_package.write_page(folders, out)
        output().print(f"page: {path}", markup=False, soft_wrap=True)
        return
    with show_package.open_server(folders, port) as server:
        try:
            output().print(f"page: {server.url} (Ctrl-C ends it)", markup=False, soft_wrap=True)
            sys.stdout.flush()
            if browser:
                webbrowser.open(server.url)
            server.serve_forever()
        except KeyboardInterrupt:
            output().print("stopped", markup=False)
