"""One thread for each worker of ``pytest -n``, and for the processes that its tests start.

Two that each take all cores wait for one another most of the time.
"""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
