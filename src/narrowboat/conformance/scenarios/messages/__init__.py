"""The scenarios of the message half, and in `histories` what those need that judge whole histories."""
