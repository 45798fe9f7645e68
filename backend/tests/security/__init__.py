"""Security tests: each test performs an attack and expects it to fail."""
