"""A blend packed into one folder that answers new test images where nothing can be installed."""
