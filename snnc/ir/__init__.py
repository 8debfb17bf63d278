"""The graph that everything works on: its modules, its stages, its rules, and its file."""
