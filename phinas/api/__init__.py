"""The front door of Python: each command as a function, with the same checks, files and messages."""
