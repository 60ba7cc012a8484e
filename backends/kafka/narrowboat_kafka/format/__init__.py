"""How messages and offsets are written: records, delays as levels, and the metadata of a commit. Pure, without I/O."""
