"""What is wrong with a data set: files, labels, duplicates, leaks, hidden groups."""
