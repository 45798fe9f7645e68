"""Pictures: receiving, re-encoding, keeping and sending them, and knowing who shows them."""
