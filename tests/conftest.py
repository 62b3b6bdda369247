"""Settings and fixtures of all tests.

One thread a process, so that parallel tests do not compete for cores; the tests of a file in one worker, so that its
fixtures are made once; a temporary folder per worker, because the tests of the sandbox compare its content before and
after each attack; a shared sandbox and a cache of compiled programs.
"""

from __future__ import annotations

import gc
import multiprocessing.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from gradatim.sandbox.command import Sandbox, sandbox_support

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads of several processes share the cores: none may spin
os.environ.setdefault("HF_HUB_OFFLINE", "1")

hypothesis.settings.register_profile("tests", deadline=None)  # an example may take long on a busy machine
hypothesis.settings.load_profile("tests")


LONGEST = (
    "sandbox",
    "elsewhere",
    "test_run.py",
    "languages/test_guards.py",
    "test_study.py",
    "contracts/test_languages.py",
    "student/test_decode.py",
    "test_cycles.py",
    "processes/test_processes.py",
    "test_commands.py",
    "mobile/test_policy_run.py",
    "show/test_playgrounds.py",
    "show/test_show_page.py",
    "student/test_traced.py",
    "export/test_gguf.py",
    "test_docs.py",
    "test_imports.py",
    "test_trainer.py",
)
"""Groups of tests that take longest; a worker that began one last would work alone at the end."""


@pytest.hookimpl(tryfirst=True)  # before the workers read the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Assign each file to one worker: a run or model that a module's fixture makes takes longer than most tests.

    The groups in ``LONGEST`` come first.
    """
    places: dict[pytest.Item, int] = {}
    for item in items:
        mark = item.get_closest_marker("xdist_group")
        group = str(item.path.relative_to(Path(__file__).parent)) if mark is None else mark.args[0]
        if mark is None:
            item.add_marker(pytest.mark.xdist_group(group))
        places[item] = LONGEST.index(group) if group in LONGEST else len(LONGEST)
    items.sort(key=places.__getitem__)


def pytest_collection_finish() -> None:
    """Leave modules and tests out of later garbage collections: those of all objects took 5 % of the time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def temporary_folder_of_worker() -> Iterator[Path]:
    """Temporary folder that no other worker uses, with the mode of the system's own."""
    multiprocessing.util.get_temp_dir()  # made in the system's own folder, since it is removed after this one
    folder = Path(tempfile.mkdtemp(prefix="tests-"))
    folder.chmod(0o1777)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        patch.setenv("TRACKIO_DIR", str(folder / "trackio"))  # read once, at its import: else the user's own database
        yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def fork_server(temporary_folder_of_worker: Path) -> None:
    """Start the process that commands are forked from before a study starts one for its workers: there is one only.

    A study's own has imported less. Nothing is started unless a collected module forks commands.
    """
    if "forked_commands" in sys.modules:
        sys.modules["forked_commands"].forking()


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """One sandbox for all tests; they are skipped where it cannot run."""
    support = sandbox_support()
    if not support.available:
        pytest.skip(f"no sandbox: {support.reason}; {support.advice}")
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def compiled_here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Cache of the tests, so that no program compiled by an earlier version is used; one for all workers."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "cache-of-languages"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADATIM_CACHE", str(folder))
        yield folder
