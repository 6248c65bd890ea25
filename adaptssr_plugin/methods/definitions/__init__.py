"""The pre-training methods, one file each. Importing a file registers its method."""
