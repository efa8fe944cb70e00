"""Files and facts about the machine."""
