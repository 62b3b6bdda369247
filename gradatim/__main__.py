"""``python -m gradatim`` is ``gradatim``."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> int:
    """Run the command line of this process and return its exit code.

    The import is inside because worker processes import this module again, and none of them needs a command line.
    """
    from .cli.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
