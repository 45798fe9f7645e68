"""Services for articles.

rows.py       selected columns and visibility rules
reading.py    read one article by id or slug
listing.py    lists: filters, sorting, pagination
counting.py   cached totals of lists
matching.py   full-text search: which articles match
writing.py    create, update, delete and restore
slugs.py      assign slugs and keep former ones
tagging.py    assign tags
rendering.py  columns derived from the Markdown: HTML, plain text, counts
"""
