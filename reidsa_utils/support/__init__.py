"""What no notebook teaches: files written whole, locks, several processes, memory."""
