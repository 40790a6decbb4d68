"""What can be compared with a known optimum, one module for each kind of model.

A module's `CERTIFICATES` are found by its being in this folder, and made in the order of the
modules' names. Nothing here loads torch before a certificate is made.
"""

from importlib import import_module
from pkgutil import iter_modules

from scripts.certified.common import Certificate, Line, Settings

__all__ = ["CERTIFICATES", "Certificate", "Line", "Settings"]

CERTIFICATES: dict[str, Certificate] = {
    name: certificate
    for module in iter_modules(__path__)
    if module.name != "common"
    for name, certificate in import_module(f"{__name__}.{module.name}").CERTIFICATES.items()
}
"""By the name that `scripts/certificates.py --only NAME` knows."""
