"""What holds for every test: none of them depends on the speed of the machine."""

from hypothesis import HealthCheck, settings

# As hypothesis does by itself where CI is set: an example may take as long as it takes.
settings.register_profile(
    "any-speed", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any-speed")
