"""Programs that measure other libraries, each run as a script in that library's own environment."""
