"""Locks and messages on Redis."""
