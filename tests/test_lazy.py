"""Modules imported at first use: a package stays unloaded until an attribute is read, and patches reach it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gradatim.lazy import LazyModule, lazy_names


def test_a_module_is_imported_when_an_attribute_is_read():
    code = (
        "import sys\nfrom gradatim.lazy import np\nfrom gradatim.training import losses\nheavy = ('numpy', 'torch')\n"
        "print([name in sys.modules for name in heavy])\nprint(losses.__name__, np.zeros(2).sum())\n"
        "print([name in sys.modules for name in heavy])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[False, False]\ngradatim.training.losses 0.0\n[True, False]\n", done.stderr


def test_an_attribute_set_or_patched_is_that_of_the_module(monkeypatch):
    import json

    lazy = LazyModule("json")
    monkeypatch.setattr(lazy, "dumps", "patched")
    assert json.dumps == lazy.dumps == "patched"
    monkeypatch.undo()
    assert json.dumps is lazy.dumps
    assert "dumps" in dir(lazy)


def test_an_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        lazy_names("gradatim.training")("absent")
    with pytest.raises(AttributeError):
        _ = LazyModule("json").absent
