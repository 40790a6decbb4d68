"""Certificates of models against known optima, one module for each kind of model.

The `CERTIFICATES` of every module in this folder are found, and stand in the order of the book's
chapters, then of the modules' names. No module here loads torch before a certificate is made.
"""

from importlib import import_module
from pkgutil import iter_modules

from scripts.certified.common import Certificate, Line, Settings

__all__ = ["CERTIFICATES", "Certificate", "Line", "Settings"]

_FOUND: list[tuple[str, Certificate]] = [
    named
    for module in iter_modules(__path__)
    if module.name != "common"
    for named in import_module(f"{__name__}.{module.name}").CERTIFICATES.items()
]
CERTIFICATES = dict(sorted(_FOUND, key=lambda named: named[1].chapter))
"""Certificates by the name for `scripts/certificates.py --only NAME`."""
