"""The file for the host: made, checked, kept in a ledger, compared with the leaderboard."""
