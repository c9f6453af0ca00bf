"""Two sets of images in, numbers out. METRICS and EXTRACTORS name what there is."""

from medgan.registry import Registry

METRICS = Registry(
    "metric",
    {
        "fid": "medgan.metrics.fid:FID",
    },
    group="medgan.metrics",
)

EXTRACTORS = Registry(
    "extractor",
    {
        "inception-2015-12-05": "medgan.metrics.inception:InceptionExtractor",
    },
    group="medgan.extractors",
)
