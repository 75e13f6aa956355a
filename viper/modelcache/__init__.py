"""The model cache: any URI of a model becomes a local directory with verified files."""

from viper.modelcache.cache import CachedModel, ModelCache
from viper.modelcache.locate import Pinned, fetch, hub_is_offline, locate, model_cache, pin, pull_command

__all__ = [
    "CachedModel",
    "ModelCache",
    "Pinned",
    "fetch",
    "hub_is_offline",
    "locate",
    "model_cache",
    "pin",
    "pull_command",
]
