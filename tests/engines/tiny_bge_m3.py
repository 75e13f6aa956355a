"""A random BGE-M3 of a few thousand weights, in the layout in which the real one is published."""

from __future__ import annotations

import json
import random
from pathlib import Path
from string import ascii_letters
from typing import Any

from viper.smallworld import language
from viper.smallworld.making.lessons import fresh_scene

SENTENCES = (
    "At top left the color is red.",
    "Make the small dotted ring at the bottom of the picture blue.",
    "The background is smooth.",
)


def build(directory: Path, **changes: Any) -> Path:
    """Writes the files that FlagEmbedding and sentence-transformers read; returns the directory.

    Args:
        changes: fields of the configuration.
    """
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaModel

    tokenizer = _tokenizer()
    tokenizer.save_pretrained(directory)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=130,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        **(shape | changes),
    )
    model = XLMRobertaModel(config)
    with torch.no_grad():  # the usual start is so small that all sentences look alike
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(len(name)))
    model.save_pretrained(directory)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    files: dict[str, Any] = {
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(modules)
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": config.hidden_size,
            "pooling_mode_cls_token": True,
            "pooling_mode_mean_tokens": False,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
        "sentence_bert_config.json": {"max_seq_length": 128, "do_lower_case": False},
        "config_sentence_transformers.json": {"__version__": {"sentence_transformers": "2.2.2"}},
    }
    for name, content in files.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    return directory


def _tokenizer() -> Any:
    """XLM-R's tokenizer with pieces learnt from a few sentences, ids in XLM-R's order."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import XLMRobertaTokenizer

    rng = random.Random(0)
    texts = [language.caption(fresh_scene(rng)) for _ in range(100)] + list(SENTENCES)
    learnt = Tokenizer(models.Unigram())
    learnt.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=400,
        special_tokens=special,
        unk_token=special[3],
        initial_alphabet=list(ascii_letters),
        show_progress=False,
    )
    learnt.train_from_iterator(texts, trainer)
    vocabulary = [tuple(piece) for piece in json.loads(learnt.to_str())["model"]["vocab"]]
    return XLMRobertaTokenizer(vocab=[*vocabulary, ("<mask>", 0.0)], model_max_length=128)
