"""Networks of a run as files for other programs, with a model card."""
