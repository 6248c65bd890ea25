"""Stages of training: the step and the validation of each objective."""
