"""Starting a command several times over, as the processes of one training on this machine."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

from ..training.ending import Ending


def start_processes(words: Sequence[str], number: int) -> int:
    """Run the command ``words`` in several processes, which find one another by torchrun's variables.

    SIGTERM goes on to all of them. When one fails, the others are ended.

    Args:
        words: of the command line, without ``adaptssr``.
        number: of processes, at least 2.

    Returns:
        0, or the exit status of the first one that failed, as a shell gives it.
    """
    command = [sys.executable, "-m", "adaptssr_plugin", *words]
    common = {"WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    # Threads of their own in every process would be in one another's way, as torchrun knows too.
    common["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // number, 1)))
    children: list[subprocess.Popen[bytes]] = []

    def forward(received: int, _frame: FrameType | None) -> None:
        for child in children:
            child.send_signal(received)

    before = signal.signal(signal.SIGTERM, forward)
    try:
        for rank in range(number):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            children.append(subprocess.Popen(command, env={**os.environ, **common, **own}))
        return _wait(children)
    finally:
        signal.signal(signal.SIGTERM, before)
        for child in children:
            child.kill()


def _wait(children: Sequence["subprocess.Popen[bytes]"]) -> int:
    """Wait for all; once one has failed the others have so long and no longer."""
    failed, ending = 0, Ending(children)
    while any(child.poll() is None for child in children):
        failed = failed or next((child.returncode for child in children if child.returncode), 0)
        ending.hasten(bool(failed))
        time.sleep(0.05)
    failed = failed or next((child.returncode for child in children if child.returncode), 0)
    return failed if failed >= 0 else 128 - failed


def without_option(words: Sequence[str], name: str) -> list[str]:
    """Take an option with its value, ``--name VALUE`` or ``--name=VALUE``, out of a command line."""
    left: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == name:
            next(rest, None)
        elif not word.startswith(f"{name}="):
            left.append(word)
    return left


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
