"""Pydantic schemas: what the API takes in and gives out, one module a resource."""
