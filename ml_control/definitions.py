"""Every pipeline below ``ML_CONTROL_PIPELINES`` as Dagster definitions.

dagster dev -m ml_control.definitions
"""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from types import ModuleType

import dagster as dg

from ml_control.components.platform import platform_defs
from ml_control.errors import MlControlError
from ml_control.resources.instance import skip_welcome_window
from ml_control.services.authoring.pipelines import FILE, read_pipeline
from ml_control.settings import load_settings

_logger = logging.getLogger("ml_control")


def load_pipelines(
    root: Path, allowed_env: tuple[str, ...] = ()
) -> tuple[list[dg.Definitions], dict[str, str]]:
    """Definitions of each pipeline folder, and the reason for each one that does not load.

    A file is first read as the commands read it, so that both refuse the same, before Dagster
    expands its templates or its aliases. The folder is read as a package without code, so that
    Dagster's errors name file and line, its UI links to the YAML, and a stray ``.py`` beside it is
    not run.
    """
    from dagster.components.core.component_tree import ComponentTree

    platform = platform_defs()
    loaded: list[dg.Definitions] = []
    broken: dict[str, str] = {}
    for file in sorted(root.glob(f"*/{FILE}")) if root.is_dir() else []:
        try:
            read_pipeline(file, allowed_env)
            # A tree for each: Dagster reads a whole tree before it builds any part of it.
            module = ModuleType(f"ml_control_pipelines_{file.parent.name}")
            module.__path__ = [str(file.parent)]
            module.__file__ = None
            sys.modules[module.__name__] = module
            tree = ComponentTree(defs_module=module, project_root=root)
            definitions = tree.build_defs(file.parent)
            dg.Definitions.merge(definitions, platform).resolve_all_job_defs()
        except Exception as error:  # one broken pipeline must not hide the others
            cause: BaseException = error
            while cause.__cause__ is not None and not isinstance(cause, MlControlError):
                cause = cause.__cause__
            broken[file.parent.name] = str(cause)
            continue
        loaded.append(definitions)
    return loaded, broken


def load_definitions() -> dg.Definitions:
    """All pipelines of this installation with the platform's resources."""
    settings = load_settings()
    skip_welcome_window()
    with warnings.catch_warnings():
        # Dagster marks the component features we use as beta, once for every asset.
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.simplefilter("ignore", dg.PreviewWarning)
        loaded, broken = load_pipelines(settings.pipelines, settings.yaml_env)
    for name, reason in broken.items():
        _logger.error("pipeline %s is left out: %s", name, reason)
    return dg.Definitions.merge(*loaded, platform_defs(str(settings.home)))


defs = load_definitions()
