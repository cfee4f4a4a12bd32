"""The fixtures of tests on methods; see tests/_method_fixtures.py."""

from tests._method_fixtures import *  # noqa: F403
