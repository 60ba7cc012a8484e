"""The scenarios, by half. Each file holds one section of the catalogue; a file is found because it lies here."""
