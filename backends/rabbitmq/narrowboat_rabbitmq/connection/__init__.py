"""The I/O thread, and what lives on it: connections, their channels, and the publisher with its confirms."""
