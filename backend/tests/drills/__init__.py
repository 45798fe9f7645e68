"""Long tests of operations, with large tables and small containers. `make drills` runs them."""
