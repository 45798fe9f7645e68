"""HTTP: middleware, routes, caching headers, error responses."""
