"""What every room needs: files, text, progress, compiled functions."""
