"""Random weights from which a SAM 2 model learns early what a click means."""

import re

import torch

from sam2_core.model.sam2 import SAM2Base

FEATURES = re.compile(r"image_encoder\.neck\.convs|sam_mask_decoder\.conv_s[01]")
CROSS_ATTENTION = re.compile(r"(sam_mask_decoder\.transformer\..*(?:token_to_image|image_to_token))\.q_proj\.weight")
LAST_HYPERNETWORK_BIAS = re.compile(r"output_hypernetworks_mlps\.\d+\.layers\.2\.bias")


@torch.no_grad()
def prepare_decoder(model: SAM2Base, lowest: float = 0.5, highest: float = 4.0, gain: float = 3.0) -> None:
    """Change the random weights a run starts from.

    Left as they are, random image features drown the place of the click, and masks collapse to nothing for good.
    So the features that reach the decoder start small, and queries and keys of the attention between tokens and
    image start as the same projection, so that near places attend to each other. The prompts' Fourier frequencies are
    drawn from several scales: SAM's single one tells points apart that lie a tenth of the image from each other,
    and among cells neighbours are closer. Masks start as mostly background and objects as present, else the trunk's
    first lesson is to say so with a large constant (the prior of Lin et al. 2017, RetinaNet, sec. 4.1).

    Parameters
    ----------
    lowest, highest : float
        Scales of the Fourier frequencies, in the units of SAM's 1.
    gain : float
        Of the attention's projections.
    """
    matrix = model.sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
    matrix.mul_(lowest * (highest / lowest) ** torch.linspace(0, 1, matrix.shape[1]))
    parameters = dict(model.named_parameters())
    for name, value in parameters.items():
        if FEATURES.search(name):
            value.mul_(0.3 if name.endswith("weight") else 0.0)
        elif attention := CROSS_ATTENTION.fullmatch(name):
            value.mul_(gain)
            parameters[f"{attention[1]}.k_proj.weight"].copy_(value)
            parameters[f"{attention[1]}.q_proj.bias"].zero_()
            parameters[f"{attention[1]}.k_proj.bias"].zero_()
        elif "sam_prompt_encoder.point_embeddings" in name:
            value.mul_(0.3)
        elif LAST_HYPERNETWORK_BIAS.search(name):
            value[0] = -3.0
    parameters["sam_mask_decoder.output_upscaling.3.bias"][0] = 1.0
    score = [name for name in parameters if name.startswith("sam_mask_decoder.pred_obj_score_head")]
    if score:
        parameters[score[-1]].fill_(3.0)
