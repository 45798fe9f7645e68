"""Backups: the database, the images that it refers to, and a manifest, as one set.

errors.py      what operators can correct
encryption.py  the key: age for contents, HMAC for manifests
targets.py     a folder or a bucket with backups
programs.py    pg_dump and pg_restore
manifest.py    manifests: signed, written last
progress.py    how a long operation reports its progress
listing.py     the list of the images of a backup
creating.py    create
checking.py    verify
pruning.py     prune
recording.py   records of runs in the database
scheduling.py  schedule
restoring.py   restore
"""
