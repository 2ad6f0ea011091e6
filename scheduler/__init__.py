"""The head's brain: decides which card renders which job, and is the only writer of job and attempt status."""
