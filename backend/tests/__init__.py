"""The tests. They mirror app/; conftest.py has the fixtures, factories.py makes what they need."""
