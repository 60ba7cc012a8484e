"""Locks, under way."""
