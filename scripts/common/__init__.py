"""Code that several commands share; the commands are the modules one folder up."""
