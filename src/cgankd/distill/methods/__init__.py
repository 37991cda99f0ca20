"""One file per distillation method; importing this package registers them all."""

import importlib
import pkgutil

for _file in pkgutil.iter_modules(__path__):  # importing a method's file registers it
    importlib.import_module(f"{__name__}.{_file.name}")
