"""Folder of the fork server of ``multiprocessing``, which outlives the temporary folder of the tests."""

from multiprocessing import util

util.get_temp_dir()
