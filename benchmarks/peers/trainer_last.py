"""An epoch of the transformers Trainer with all but the last layers frozen: trainer_last.py CHECKPOINT CORPUS CONTEXT LAYERS.

The blocks are those that headstart trains on; prints one JSON object with the seconds of each epoch.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import torch
import transformers

from headstart.language.corpus import read_corpus
from headstart.language.packing import pack
from headstart.language.parts import part

EPOCHS, BATCH_SIZE, RATE = 3, 8, 1e-3


class Watch(transformers.TrainerCallback):
    """Seconds of each epoch."""

    def __init__(self):
        self.seconds = []

    def on_epoch_begin(self, args, state, control, **_):
        """Start the clock."""
        self._began = time.perf_counter()

    def on_epoch_end(self, args, state, control, **_):
        """Stop the clock."""
        self.seconds.append(time.perf_counter() - self._began)


def main(checkpoint: str, corpus: str, context: int, layers: int) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    blocks = pack(part(read_corpus(Path(corpus)), seed=0).train, tokenizer, context)
    model.requires_grad_(False)
    for module in (*model.transformer.h[-layers:], model.transformer.ln_f):
        module.requires_grad_(True)
    rows = [{"input_ids": torch.from_numpy(row), "labels": torch.from_numpy(row)} for row in blocks.read]
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder,
            per_device_train_batch_size=BATCH_SIZE,
            num_train_epochs=EPOCHS,
            learning_rate=RATE,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        transformers.Trainer(model, arguments, train_dataset=rows, callbacks=[watch]).train()
    print(json.dumps({"seconds": watch.seconds, "blocks": len(blocks)}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
