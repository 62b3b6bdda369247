"""A run in the browser: one self-contained page, live from a server or written to a file.

    content        runs, stages, test programs and the verdicts on them, read from run folders
    environments   policies: test environments, their utility after each stage, maps of episodes
    question_tree  questions of runs with a teacher: attempt, verdict, new questions
    weights        the weights of a student in the form that the page's script reads
    page           the HTML page; ``write_page`` writes it to a file, ``write_report`` a report with its playground
    server         the page on the loopback interface, for ``gradatim show``

The scripts of ``assets/`` use no library: ``tinypy.js`` runs programs, ``student.js`` computes the answers of GPT-2,
Llama and Qwen3 students, ``page.js`` is the page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .page import is_page, write_page, write_report
    from .server import open_server

__all__ = ["is_page", "open_server", "write_page", "write_report"]

__getattr__ = lazy_names(__name__, {"page": ("is_page", "write_page", "write_report"), "server": ("open_server",)})
