"""Features of networks that are never run, by one network or several."""

import numpy as np

from headstart.backbones.info import BackboneInfo, BlockInfo
from headstart.features import FeatureTable
from headstart.features.fusion import FusedPrefix, join_tables
from headstart.features.prefix import BlockSlice, PrefixSpec
from headstart.preprocess.image import ImagePreprocess
from headstart.records import Dataset, Sample


def spec_of(name, width):
    blocks = (BlockInfo(name="first", width=2, num_parameters=1), BlockInfo(name="pool", width=width, num_parameters=1))
    told = BackboneInfo(
        name=name,
        architecture=name,
        modality="image",
        licence="free",
        source="",
        sha256=name,
        width=width,
        num_parameters=2,
        blocks=blocks,
    )
    layout = (BlockSlice(name="first", start=0, width=2), BlockSlice(name="pool", start=2, width=width))
    return PrefixSpec(info=told, preprocess=ImagePreprocess(), layout=layout, relative_error=0.0)


def table_of(spec, vectors, ids, failures=None):
    return FeatureTable(
        ids=tuple(ids),
        vectors=vectors.astype(np.float32)[:, None],
        views=("",),
        spec=spec,
        preprocess=spec.preprocess,
        hashes={id_: "00" for id_ in ids},
        failures=failures or {},
        hits=0,
        misses=len(ids),
        seconds=1.0,
    )


class Fixed:
    """A prefix that is never run."""

    num_workers, batch_size, precision, model_path = 1, 1, "float32", None

    def __init__(self, spec):
        self.spec = spec


def fused(tables, samples):
    prefix = FusedPrefix([Fixed(table.spec) for table in tables])
    return join_tables(prefix, prefix.spec.preprocess, tables, samples)


def two_tables(second_tells):
    """Features of 200 items: the first network tells half of what the label depends on; the second the other half, or not."""
    random = np.random.default_rng(4)
    hidden = random.standard_normal((200, 2))
    labels = (hidden.sum(axis=1) > 0).astype(int)
    noise = random.standard_normal((2, 200, 5))
    noise[0, :, 2] = hidden[:, 0]
    if second_tells:
        noise[1, :, 2] = hidden[:, 1]
    samples = tuple(Sample(id=f"{row}", item=None, labels=("ab"[label],)) for row, label in enumerate(labels))
    dataset = Dataset(samples=samples, labels=("a", "b"), task="single", modality="image", source="")
    ids = [sample.id for sample in samples]
    return [table_of(spec_of(name, 3), part, ids) for name, part in zip("xy", noise, strict=True)], dataset
