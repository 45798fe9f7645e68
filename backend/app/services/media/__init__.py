"""Media: upload, re-encoding, storage and deletion of images."""
