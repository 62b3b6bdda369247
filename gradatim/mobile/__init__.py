"""Mobile networks: environments of mobile-env as samples, rewards, difficulties, and the suite ``episodes``.

A user of a cellular network moves on a plane and may connect to several base stations. A policy decides at each step
which connection of each user is added or removed. The *utility* of a user grows with the logarithm of its data rate.
The simulator is mobile-env (extra ``mobile``); arXiv 2405.18039 trains on it with stages that a language model designs.

    environment   one environment as a sample: the JSON text in its prompt, the label of its level
    network       the simulator: padded observations and actions, tabulated path loss
    rewards       the registry ``REWARDS``: quantities that a policy is trained on
    source        the source ``mobile``: environments of several kinds, each with a seed of its own
    difficulty    the difficulties ``load`` and ``nearest_station``
    play          episodes of a policy, several side by side, and the rule that serves as reference
    episodes      the suite ``episodes``: utility, share of connected users

The policies are trained in ``policy``.
"""

from __future__ import annotations

import importlib.util
import os

from ..errors import UserError
from ..lazy import lazy_names

PACKAGES = ("mobile_env", "gymnasium", "stable_baselines3")
"""Modules of the extra ``mobile``."""


def require_packages(where: str) -> None:
    """Raise ``UserError`` when a package of the extra ``mobile`` is missing. ``where``: the key that needs it."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            "a package is missing",
            where=where,
            given=f"no module {missing[0]}",
            hint="pip install 'gradatim[mobile]'",
        )
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # imported by mobile-env for its window
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


__getattr__ = lazy_names(__name__)
