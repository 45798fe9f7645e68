"""Articles: listing and reading, writing and publishing, and what is made of their Markdown.

rows.py       what a read selects, and which articles a reader may see
reading.py    one article, by id or by slug
listing.py    lists: filters, orders, pages
counting.py   how long a list is
writing.py    writing, changing, deleting and restoring
slugs.py      finding a free slug, and following one that has changed
tagging.py    giving an article its tags
rendering.py  what is stored of the Markdown: HTML, plain text, counts
"""
