"""The command ``adaptssr``: parses, calls, prints."""
