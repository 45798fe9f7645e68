"""Pydantic schemas: requests and responses, one module per resource."""
