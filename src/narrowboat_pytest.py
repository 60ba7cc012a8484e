"""The pytest options of the conformance kit."""
