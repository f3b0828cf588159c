"""The host's files as they are: tables, rows that are files, new columns, what the sample asks for."""
