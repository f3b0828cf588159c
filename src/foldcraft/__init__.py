"""Foldcraft: from a folder of competition images to a submission whose score you can believe."""
