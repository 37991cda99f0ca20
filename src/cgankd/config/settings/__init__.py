"""The settings of every part of a run, typed: defaults, bounds, units, and what each one is for."""

from cgankd.config.settings.base import Decay, Seeds, Settings
from cgankd.config.settings.compare import CompareSettings
from cgankd.config.settings.data import DataSettings
from cgankd.config.settings.generator import GeneratorSettings, VicinitySettings
from cgankd.config.settings.metrics import MetricsSettings, RobustnessSettings
from cgankd.config.settings.ratio import RatioSettings
from cgankd.config.settings.runtime import RuntimeSettings
from cgankd.config.settings.student import StudentSettings
from cgankd.config.settings.synthesis import SearchSettings, SynthesisSettings
from cgankd.config.settings.teacher import JurorSettings, TeacherSettings
from cgankd.config.settings.training import AdversarialSettings, AttackSettings, AugmentSettings, FitSettings

__all__ = [
    "AdversarialSettings",
    "AttackSettings",
    "AugmentSettings",
    "CompareSettings",
    "DataSettings",
    "Decay",
    "FitSettings",
    "GeneratorSettings",
    "JurorSettings",
    "MetricsSettings",
    "RatioSettings",
    "RobustnessSettings",
    "RuntimeSettings",
    "SearchSettings",
    "Seeds",
    "Settings",
    "StudentSettings",
    "SynthesisSettings",
    "TeacherSettings",
    "VicinitySettings",
]
