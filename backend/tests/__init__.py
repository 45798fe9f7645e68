"""The tests. The folders mirror app/; conftest.py has fixtures, factories.py creates rows."""
