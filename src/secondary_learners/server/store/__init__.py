"""What is kept: files by their sha256, and a database that says whose they are and where."""
