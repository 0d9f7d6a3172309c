"""The verbs of the launcher: demo, test, play, lab, setup."""
