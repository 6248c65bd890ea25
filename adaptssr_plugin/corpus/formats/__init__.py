"""File formats of behaviour data: readers, writers and converters."""
