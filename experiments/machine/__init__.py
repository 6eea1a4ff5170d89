"""What a run asks of its machine: processes, devices, signals, compiled programs."""
