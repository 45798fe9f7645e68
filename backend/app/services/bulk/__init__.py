"""Articles in bulk: importing and exporting them by the thousand.

records.py     what is imported, what it is known by, and what has come by already
importing.py   from a source's batches to the database, reading ahead while the last one is written
planning.py    one batch: what is new, what has changed, what is wrong
writing.py     that batch, written
statements.py  the statements of a batch
tally.py       what an import did, counted
exporting.py   articles as records, in batches
sources.py     the formats that there are, and which one a file has
files.py       opening files without following links
foreign.py     what the readers of other systems' exports share
authors.py     the users whom another system's authors become
ndjson.py      one JSON object a line: our own format
markdown.py    a folder of Markdown files with YAML front matter
ghost.py       Ghost's JSON export; lexical.py has its editors' documents
wordpress.py   WordPress's WXR export
html.py        HTML as Markdown
"""
