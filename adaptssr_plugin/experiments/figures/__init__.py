"""Figures of the paper's evaluation."""
