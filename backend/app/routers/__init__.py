"""The native HTTP API: one module per resource. A handler calls one service function."""
