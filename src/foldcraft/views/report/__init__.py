"""One HTML page about some experiments of a competition; it shows, and computes nothing."""
