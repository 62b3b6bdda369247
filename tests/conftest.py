"""What every test needs: one thread a process, so that tests beside each other do not spin on the same cores."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
