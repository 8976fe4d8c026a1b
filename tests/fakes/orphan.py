"""Runs a command as an orphan: forks twice, takes a session of its own, and begins once its parent is gone.

Usage: orphan.py PROGRAM ARGUMENT…. The command keeps this process's output, so the reader of that waits for it.
"""

import os
import sys
import time

if os.fork():
    os._exit(0)
os.setsid()
parent = os.getpid()
if os.fork():
    os._exit(0)
while os.getppid() == parent:
    time.sleep(0.005)
os.execvp(sys.argv[1], sys.argv[1:])
