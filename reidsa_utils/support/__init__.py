"""What stands around the work and no notebook teaches: files written whole, locks, several processes."""
