"""Policies of mobile networks: settings, the network, training with PPO.

    settings    the options of a policy and of its training
    masked      the network: an actor-critic whose actions are masked where a user or a station is absent; its files
    order       the environment of each episode of a stage
    ppo         training of a stage with PPO of Stable-Baselines3, and its checkpoints
    measures    measurements that adaptive schedules need, and attempts at environments

PPO is that of Stable-Baselines3 (extra ``mobile``); nothing here computes a gradient.
"""

from __future__ import annotations

from ..lazy import lazy_names

__getattr__ = lazy_names(__name__)
