"""The waiters of this process, and the thread that notices other processes' commits."""
