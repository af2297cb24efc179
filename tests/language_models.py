"""Causal models of several families, tiny and with random weights, saved by transformers with a byte-level tokenizer."""

import random

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END = "<|endoftext|>"
SUBJECTS = ("the cat", "a dog", "my sister", "the old man", "one bird")
VERBS = ("sees", "likes", "follows", "hears", "waits for")


def sentences(count, *, seed=0, objects=("the moon", "a song", "the sea", "some bread")):
    """Sentences of a small grammar, a line each."""
    draw = random.Random(seed)
    return [f"{draw.choice(SUBJECTS)} {draw.choice(VERBS)} {draw.choice(objects)}." for _ in range(count)]


def make_tokenizer(texts, *, size=300):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)


def _config(family, size):
    same = {"vocab_size": size, "eos_token_id": 0, "bos_token_id": 0}
    rotary = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
    }
    match family:
        case "gpt2":
            return transformers.GPT2Config(n_embd=32, n_layer=3, n_head=4, n_positions=64, **same)
        case "llama":
            return transformers.LlamaConfig(**rotary, **same)
        case "qwen2":
            return transformers.Qwen2Config(**rotary, **same, tie_word_embeddings=True)
        case "qwen3":
            return transformers.Qwen3Config(**rotary, **same, head_dim=8)
    raise ValueError(family)


def save_language_model(folder, family="gpt2", *, spread=0.05):
    """Save a tiny language model and its tokenizer, and give the folder."""
    tokenizer = make_tokenizer(sentences(50))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = transformers.AutoModelForCausalLM.from_config(_config(family, len(tokenizer)))
        # Random weights as they begin are so small that layers hardly differ.
        for parameter in network.parameters():
            parameter.data += spread * torch.randn_like(parameter)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
