"""Pages for writing: list, editor, pictures, revisions, preview links and trash."""
