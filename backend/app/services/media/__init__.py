"""Media: upload, re-encoding, storage and delivery of images, and references from articles."""
