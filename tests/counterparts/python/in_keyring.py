"""Runs a command in a session keyring of its own, as a login session has one.

python in_keyring.py COMMAND ARGUMENT...
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys

#: keyctl(2) has no wrapper in the C library; its number depends on the machine.
KEYCTL = {"x86_64": 250, "aarch64": 219}
JOIN_SESSION_KEYRING = 1


def main() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(KEYCTL[platform.machine()], JOIN_SESSION_KEYRING, None) == -1:
        raise OSError(ctypes.get_errno(), "no session keyring")
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
