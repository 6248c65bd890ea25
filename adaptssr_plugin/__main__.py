"""``python -m adaptssr_plugin`` and the command ``adaptssr``."""

import sys

from .cli.memory import TRAINING, give_freed_memory_back
from .errors import INSTALL


def main() -> None:
    """Run the command line. Without its dependencies, say what to install."""
    if sys.argv[1:2] and sys.argv[1] in TRAINING:
        # Called here and not by the commands: this process belongs to the command and holds no tensors yet.
        give_freed_memory_back()
    try:
        from .cli.main import main as run
    except ImportError as error:
        if error.name not in ("click", "yaml"):
            raise
        print(f"adaptssr: the commands need {error.name}, which is not installed; {INSTALL}", file=sys.stderr)
        sys.exit(2)  # as for any other package that is missing
    run()


if __name__ == "__main__":
    main()
