"""Which clock a time in the file was read from, and what it says here."""
