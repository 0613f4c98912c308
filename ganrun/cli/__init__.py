"""The command line. Torch is not loaded here, so that help and completion answer at once."""
