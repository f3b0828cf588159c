"""From the predictions of several experiments to one answer a row: blends, decision rules, soups."""
