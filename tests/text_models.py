"""Text encoders of many families, tiny and with random weights, saved by transformers with a tokenizer of their own."""

import json

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = "the a film book was is very good bad fine dull bright slow quick story plot end of and not one two three".split()
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SIZE = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
LENGTHS = {"max_position_embeddings": 40, "vocab_size": len(SPECIAL) + len(WORDS), "pad_token_id": 0}


def _config(family):
    match family:
        case "bert":
            return transformers.BertConfig(**SIZE, **LENGTHS)
        case "distilbert":
            return transformers.DistilBertConfig(dim=16, n_layers=3, n_heads=2, hidden_dim=24, **LENGTHS)
        case "roberta":
            return transformers.RobertaConfig(**SIZE, **LENGTHS, bos_token_id=2, eos_token_id=3)
        case "xlm-roberta":
            return transformers.XLMRobertaConfig(**SIZE, **LENGTHS, bos_token_id=2, eos_token_id=3)
        case "mpnet":
            return transformers.MPNetConfig(**SIZE, **(LENGTHS | {"pad_token_id": 1}), bos_token_id=2, eos_token_id=3)
        case "deberta-v2":
            more = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8, "share_att_key": True}
            return transformers.DebertaV2Config(**SIZE, **LENGTHS, **more)
        case "modernbert":
            tokens = {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
            return transformers.ModernBertConfig(**SIZE, **LENGTHS, **tokens, local_attention=8, global_attn_every_n_layers=2)
        case "albert":
            return transformers.AlbertConfig(**SIZE, **LENGTHS, embedding_size=8)
    raise ValueError(family)


def _tokenizer():
    words = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    named = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)


def save_encoder(folder, family="bert", *, pooling=None, normalised=False, max_tokens=None):
    """Save a tiny encoder and its tokenizer; with `pooling`, as sentence-transformers does, and give the folder."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = transformers.AutoModel.from_config(_config(family))
        # Random weights as they begin are so small that blocks hardly differ.
        for parameter in network.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    network.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    if pooling:
        steps = [{"idx": 0, "type": "sentence_transformers.models.Transformer", "path": ""}]
        steps += [{"idx": 1, "type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]
        steps += [{"idx": 2, "type": "sentence_transformers.models.Normalize", "path": "2_Normalize"}] * normalised
        (folder / "modules.json").write_text(json.dumps(steps))
        (folder / "1_Pooling").mkdir()
        kinds = {"pooling_mode_cls_token": pooling == "cls", "pooling_mode_mean_tokens": pooling == "mean"}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(kinds))
    if max_tokens:
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": max_tokens}))
    return folder
