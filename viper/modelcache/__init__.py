"""The model cache: any URI of a model becomes a local directory with verified files."""

from viper.modelcache.cache import Entry, ModelCache
from viper.modelcache.locate import Pinned, fetch, hub_is_offline, locate, model_cache, pin, pull_command

__all__ = [
    "Entry",
    "ModelCache",
    "Pinned",
    "fetch",
    "hub_is_offline",
    "locate",
    "model_cache",
    "pin",
    "pull_command",
]
