"""What several commands share; the commands themselves are the modules one folder up."""
