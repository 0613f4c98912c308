"""The command line. It does not import torch, so that help and completion are fast."""
