"""Bulk import and export of articles.

records.py       validated records, their keys, and a set of keys
importing.py     the import pipeline: parses and renders a batch while the previous one is written
planning.py      the plan of a batch: new articles, changes and errors
writing.py       execution of the plan
statements.py    SQL statements of a batch
former_slugs.py  former slugs of imported articles
sizes.py         the bytes that records store, for limits
reporting.py     the report of an import
imports.py       imports over HTTP as rows: progress, results, retention
runs.py          imports over HTTP: receiving the body, running in the background
archives.py      extraction of ZIP files with texts
exporting.py     articles as records, in batches, and as streams in all formats
installation.py  the name of this server as a source
markdown_writing.py, ghost_writing.py  exports in other formats
sources.py       the import formats and their detection
workers.py       processes that work for an import: reading.py reads large files, texts.py renders
files.py         opening files without following symbolic links
foreign.py       shared parts of the parsers for exports of other systems
visibility.py    who could read a text, by its front matter
dates.py         dates as blogs and exports write them
paths.py         old addresses in one spelling
authors.py       mapping from authors of other systems to users
ndjson.py        NDJSON, Pressroom's own format
comments.py      comments of records: what is new, threads, export; comment_texts.py converts them
markdown.py      a folder of texts; front_matter.py reads YAML, TOML and JSON
directories.py   the configuration and folders of static sites; permalinks.py makes addresses
globs.py         patterns of paths in untrusted configurations
ghost.py         Ghost's JSON export; json_source.py reads it by rows; ghost_redirects.py
wordpress.py     WordPress's WXR export; wxr.py cuts it into items; wordpress_comments.py
converting/      texts of other systems as Markdown
relinking.py     new addresses in imported texts; references.py what an address refers to
copying.py       copies of images, from folders (folders.py) or from the old site (fetching.py)
redirects.py     redirects from old addresses
spooling.py      mappings in temporary files
seed.py          example data
"""
