"""Stages of training: what a step and a validation of each objective compute."""
