"""Hook of mkdocs: a link that leaves the documentation becomes the name of the file, which the site does not have."""

import posixpath
import re
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]\n]+)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, files: Any, **_: Any) -> str:
    """The text of a page, in which links to files outside of the site are replaced by their text."""
    folder = posixpath.dirname(page.file.src_uri)

    def replace(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, link[2]))
        return link[0] if files.get_file_from_path(path) is not None else link[1]

    return LINK.sub(replace, markdown)
