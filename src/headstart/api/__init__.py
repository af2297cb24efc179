"""The doors from Python; the command line stands on them too."""
