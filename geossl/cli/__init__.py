"""The command line: verbs, progress, and errors for people."""
