"""Images of every kind, from the file or the cell to square arrays that are kept on disk."""
