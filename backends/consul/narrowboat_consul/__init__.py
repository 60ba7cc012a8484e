"""Narrowboat on Consul: locks that hang on one session for each provider."""

from narrowboat_consul.locks import locks

__all__ = ["locks"]
