import logging
import os
import pty
import re
import subprocess
import sys
import termios

import pytest
from conftest import PROJECT

from crossfilter_inference.util import progress

PROGRAM = """
import time
from crossfilter_inference.util.progress import Progress
with Progress(20, "shard 000001") as bar:
    for _ in range(20):
        time.sleep(0.05)
        bar.update(1)
"""


@pytest.mark.timeout(30)
def test_a_bar_with_rate_and_time_left_on_a_terminal():
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "workflow")}
    subprocess.run([sys.executable, "-c", PROGRAM], stderr=theirs, env=environment, check=True, timeout=60)
    shown = os.read(ours, 100_000).decode()
    os.close(theirs)
    os.close(ours)
    assert "shard 000001" in shown
    assert re.search(r"<00:0\d, +[\d.]+photo/s", shown)


def test_log_lines_without_a_terminal(caplog, monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0)
    with caplog.at_level(logging.INFO), progress.Progress(4, "shard 000001") as lines:
        lines.update(1)
        lines.update(3)
    assert re.fullmatch(r"shard 000001: 1 of 4 photos, [\d.]+ photos/s, \d+ s left", caplog.messages[0])
    assert len(caplog.messages) == 2
