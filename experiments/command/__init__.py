"""What every command shares: flags, progress, errors."""
