"""What other systems connect to: events."""
