"""A process that imports everything once and then runs what tests ask of it, one JSON line for another."""

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager


@contextmanager
def worker_of(script):
    """Start a script that answers each line of its input by a line; it ends when its input does."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, script], stdin=pipe, stdout=pipe, text=True, env=environment) as worker:
        try:
            yield worker
        finally:
            worker.stdin.close()


def ask(worker, **asked):
    """Give a worker's answer."""
    worker.stdin.write(json.dumps(asked) + "\n")
    worker.stdin.flush()
    return json.loads(worker.stdout.readline())


def without_progress(text):
    """Leave out the lines that say how far a stage has come."""
    return re.sub(r"^[\w -]+: epoch \d+/\d+, .* to go\n", "", text, flags=re.MULTILINE)


def pretrain_words(dataset, folder, options):
    """Make the command line of a pre-training on the CPU."""
    words = ["pretrain", "--dataset", dataset, "--output", folder, "--set", "use_gpu=False", "--quiet"]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", value]
    return [str(word) for word in words]
