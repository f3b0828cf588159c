"""The best submission that a budget of time allows: actions, each an experiment, one after another by their worth."""
