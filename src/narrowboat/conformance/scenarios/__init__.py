"""The scenarios, by half. A file holds the scenarios of one section of the catalogue. The runner imports every file here."""
