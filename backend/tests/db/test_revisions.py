"""The revisions that the server reads from the files of migrations."""

from alembic.script import ScriptDirectory

from app.db.migrate import alembic_config
from app.db.revisions import head, is_known


def test_revisions_are_those_of_alembic() -> None:
    scripts = ScriptDirectory.from_config(alembic_config())
    assert head() == scripts.get_current_head()
    assert all(is_known(script.revision) for script in scripts.walk_revisions())
    assert not is_known("9999")
