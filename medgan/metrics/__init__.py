"""Two sets of images in, numbers out. METRICS and EXTRACTORS name what there is."""

from medgan.registry import Registry

METRICS = Registry(
    "metric",
    {
        "fid": "medgan.metrics.fid:FID",
        "fid50k_full": "medgan.metrics.fid:FID50kFull",
        "fid50k": "medgan.metrics.fid:FID50k",
        "kid": "medgan.metrics.kid:KID",
        "precision_inception": "medgan.metrics.neighbours:Precision",
        "recall_inception": "medgan.metrics.neighbours:Recall",
        "density_inception": "medgan.metrics.neighbours:Density",
        "coverage_inception": "medgan.metrics.neighbours:Coverage",
        "precision_pixels": "medgan.metrics.neighbours:PrecisionPixels",
        "recall_pixels": "medgan.metrics.neighbours:RecallPixels",
        "density_pixels": "medgan.metrics.neighbours:DensityPixels",
        "coverage_pixels": "medgan.metrics.neighbours:CoveragePixels",
        "precision_lpips_vgg16": "medgan.metrics.neighbours:PrecisionLPIPS",
        "recall_lpips_vgg16": "medgan.metrics.neighbours:RecallLPIPS",
        "density_lpips_vgg16": "medgan.metrics.neighbours:DensityLPIPS",
        "coverage_lpips_vgg16": "medgan.metrics.neighbours:CoverageLPIPS",
        "ms_ssim": "medgan.metrics.ssim:MSSSIM",
        "ms_ssim_saad2022": "medgan.metrics.saad2022:SaadMSSSIM",
        "cosine_pixels": "medgan.metrics.cosine:CosinePixels",
        "cosine_inception": "medgan.metrics.cosine:CosineInception",
        "ssim_nearest": "medgan.metrics.ssim:NearestSSIM",
        "ppl2_wend": "medgan.metrics.path_length:PPL2WEnd",
        "lpips_alexnet": "medgan.metrics.lpips:LPIPSAlexNet",
        "lpips_vgg16": "medgan.metrics.lpips:LPIPSVGG16",
    },
    group="medgan.metrics",
)

EXTRACTORS = Registry(
    "extractor",
    {
        "inception-2015-12-05": "medgan.metrics.inception:InceptionExtractor",
        "pixels-32": "medgan.metrics.thumbnails:PixelExtractor",
        "lpips-vgg16": "medgan.metrics.perceptual:PerceptualExtractor",
    },
    group="medgan.extractors",
)
