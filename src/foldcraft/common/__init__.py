"""What every part uses: settings, errors, files, checksums, paths of a run, callbacks."""
