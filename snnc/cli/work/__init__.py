"""What the commands do, once their options are read. Imported when a command runs, since torch takes seconds."""
