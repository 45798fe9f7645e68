"""Bulk import and export of articles.

records.py     validated records, their keys, and a set of keys
importing.py   the import pipeline: parses and renders a batch while the previous one is written
planning.py    the plan of a batch: new articles, changes and errors
writing.py     execution of the plan
statements.py  SQL statements of a batch
tally.py       the counts and messages of an import
exporting.py   articles as records, in batches
sources.py     the import formats and their detection
files.py       opening files without following symbolic links
foreign.py     shared parts of the parsers for exports of other systems
authors.py     mapping from authors of other systems to users
ndjson.py      NDJSON, Pressroom's own format
markdown.py    a folder of Markdown files with YAML front matter
ghost.py       Ghost's JSON export
wordpress.py   WordPress's WXR export
converting/    conversion of texts from other systems to Markdown
"""
