"""The database file, and this process's connection to it."""
