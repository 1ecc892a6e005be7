"""Runs a command that dies with its parent: ``python child.py PARENT_PID COMMAND ...`` (prctl(2), PR_SET_PDEATHSIG).

A file to run, not to import: it is started by path, without site packages, so that it costs little.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have died before the call; then nobody would ever end this process.
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
    os.execvp(sys.argv[2], sys.argv[2:])
