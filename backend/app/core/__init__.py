"""What every room stands on: settings, errors, logging, middleware, routing and the clock."""
