"""The GAN families. NETWORKS names them."""

from medgan.registry import Registry

NETWORKS = Registry(
    "family",
    {
        "stylegan2": "medgan.networks.stylegan2:FAMILY",
        "dcgan": "medgan.networks.dcgan:FAMILY",
    },
    group="medgan.networks",
)
