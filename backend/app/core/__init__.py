"""Settings, errors, enumerations, logging and the clock, which every layer uses."""
