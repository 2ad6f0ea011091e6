"""What a PC that joins gets from the head: the line to paste, the script that it fetches, and the farm's own package with its locks."""
