"""Settings of the whole suite."""

import hypothesis

# Compilation makes first calls slow; a failing example must fail again tomorrow.
hypothesis.settings.register_profile("project", deadline=None, derandomize=True)
hypothesis.settings.load_profile("project")
