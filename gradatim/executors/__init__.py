"""Executors: the processes that compute independent chunks of generation, scores, checks, evaluations and studies.

An executor has the interface of ``concurrent.futures.Executor``. ``local`` starts processes of this machine, ``ray``
sends tasks to a Ray cluster; another package adds its own under the entry point group ``gradatim.executors``.

``use`` selects the executor of a block. Without one, each function uses this process and its own ``workers``. Chunks
are numbered by their order, and results are read in that order (``ordered``), so that no result depends on the executor
or on the process that computed it. A task returns its result and writes no file; the files of a study's run are the
exception, each run in its own locked folder.
"""

from .executor import EXECUTORS, PENDING, Executor, await_result, current, open_executor, ordered, use

__all__ = ["EXECUTORS", "PENDING", "Executor", "await_result", "current", "open_executor", "ordered", "use"]
