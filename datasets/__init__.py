"""Datasets and suites. A file here without a leading underscore is one, and registers itself."""

import sys

from dassl.utils import import_all

import_all(sys.modules[__name__])
