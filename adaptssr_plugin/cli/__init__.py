"""The command ``adaptssr``: parsing, calling the package, printing."""
