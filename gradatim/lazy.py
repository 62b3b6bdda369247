"""Modules and names imported at first use, so that a command waits only for the packages that it needs."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any


class LazyModule(ModuleType):
    """A stand-in for the module ``name``, which is imported when an attribute is first read or set.

    Threads may share it: the import system locks each module, and attributes are never copied, so a patched attribute
    of the module is seen here too.
    """

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._imported(), attribute)

    def __setattr__(self, attribute: str, value: Any) -> None:
        setattr(self._imported(), attribute, value)

    def __delattr__(self, attribute: str) -> None:
        delattr(self._imported(), attribute)

    def __dir__(self) -> Iterable[str]:
        return dir(self._imported())

    def _imported(self) -> ModuleType:
        state = self.__dict__
        if "_module" not in state:
            state["_module"] = importlib.import_module(self.__name__)
        module: ModuleType = state["_module"]
        return module


lazy_module = cache(LazyModule)


def lazy_names(package: str, modules: Mapping[str, Sequence[str]] = MappingProxyType({})) -> Callable[[str], Any]:
    """Module-level ``__getattr__`` of ``package`` (PEP 562).

    ``modules``: {submodule: names defined in it}, imported when a name is first used. A name must differ from all
    submodules, whose import would replace it. ``from package import submodule`` gives a ``LazyModule``.
    """
    module_of = {name: module for module, names in modules.items() for name in names}

    def attribute(name: str) -> Any:
        if name in module_of:
            return getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)
        if not name.startswith("_") and importlib.util.find_spec(f"{package}.{name}") is not None:
            return lazy_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return attribute


if TYPE_CHECKING:
    import numpy
    import pyarrow
    import pyarrow.compute
    import pyarrow.parquet
    import torch as torch

    np = numpy
    pa = pyarrow
    pc = pyarrow.compute
    pq = pyarrow.parquet
else:
    np = lazy_module("numpy")
    pa = lazy_module("pyarrow")
    pc = lazy_module("pyarrow.compute")
    pq = lazy_module("pyarrow.parquet")
    torch = lazy_module("torch")
