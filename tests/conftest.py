"""Settings for all tests."""

from hypothesis import settings

# examples are not timed: a busy machine would fail them
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
