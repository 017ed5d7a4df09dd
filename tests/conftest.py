"""For the whole suite: property tests are bounded in examples, not in time."""

from hypothesis import settings

# The machine may be busy, and no test asserts a time.
settings.register_profile("pinfold", deadline=None)
settings.load_profile("pinfold")
