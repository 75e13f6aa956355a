"""A drawn world with exact truth, small enough for a model of a million parameters and a machine without a GPU.

It is an extension as any package may be: nothing outside of this folder imports it.
"""

from pathlib import Path

from viper.extensions import Engine, Extension, Uris

_COUNT, _SEED = "count=([1-9][0-9]{0,5}|1000000)", "seed=[0-4]?[0-9]{1,2}"

EXTENSION = Extension(
    engines={
        "reconstructor": Engine("viper.smallworld.reconstructor:SmallWorldReconstructor", "none"),
        "editor": Engine("viper.smallworld.editor:SmallWorldEditor", "none"),
        "similarity": Engine("viper.smallworld.similarity:SmallWorldSimilarity"),
        "imageSimilarity": Engine("viper.smallworld.clip:SmallWorldClip"),
    },
    prompts=Path(__file__).parent / "prompts",
    pools=Uris(
        "smallworld:scenes?count=N&seed=S",
        "viper.smallworld.supply:scenes",
        rf"smallworld:scenes\?({_COUNT}(&{_SEED})?|{_SEED}&{_COUNT})",
        limits="N from 1 to 1000000 and S below 500",
        side=96,
    ),
    questions=Uris("smallworld:questions", "viper.smallworld.supply:question_set", "smallworld:questions"),
    models=Uris("smallworld:starter", "viper.smallworld.supply:starter", "smallworld:starter"),
    pairs="viper.smallworld.pairs:small_world_pairs",
)
