"""The generator that tests of bundles and exports write: 32 px, eight channels."""

GENERATOR = {
    "z_dim": 16,
    "c_dim": 0,
    "w_dim": 16,
    "img_resolution": 32,
    "img_channels": 1,
    "channel_base": 256,
    "channel_max": 8,
    "mapping_layers": 2,
}
