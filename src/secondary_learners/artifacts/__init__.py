"""What an artifact is: the folder, its files, its records."""
