"""``python -m adaptssr_plugin`` and the command ``adaptssr``."""

import sys


def main() -> None:
    """Run the command line, or say what to install for it."""
    try:
        from .cli.main import main as run
    except ImportError as error:
        if error.name not in ("click", "yaml"):
            raise
        sys.exit(f'adaptssr: the commands need {error.name}: pip install "adaptssr-plugin[recbole]"')
    run()


if __name__ == "__main__":
    main()
