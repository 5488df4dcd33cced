"""Helpers for every room: files, text, progress, compiled functions."""
