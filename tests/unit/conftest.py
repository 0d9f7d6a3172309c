"""Settings of all unit tests."""

from hypothesis import HealthCheck, settings

# Speed is no matter of the unit tests: other work may share the machine.
settings.register_profile("shared_machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared_machine")
