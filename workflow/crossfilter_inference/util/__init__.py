"""Helpers for every layer: files, text, progress, compiled functions."""
