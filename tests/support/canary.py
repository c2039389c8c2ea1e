"""A value that must be found in no output of the suite. It is no secret."""

CANARY = "dummy-canary-8f3a1c-not-a-real-secret"
VARIABLE = "DUMMY_CANARY_API_KEY"
