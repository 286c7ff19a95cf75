"""Models from names, YAML of Meta and of forks, overrides; and what is said when something does not fit."""

import pytest
import torch

from sam2_core.build import (
    build_model,
    build_sam2,
    build_sam2_hf,
    build_sam2_video_predictor,
    build_sam2_video_predictor_hf,
    load_model,
    resolve_device,
)
from sam2_core.configs import find_config, load_config
from sam2_core.errors import InputError

SMALL = ["++model.image_size=64"]
NANO = "configs/nano/cells-nano.yaml"


@pytest.fixture
def config():
    return load_config("cells-nano", SMALL)


@pytest.fixture
def checkpoint(tmp_path, small_model):
    path = tmp_path / "model.pt"
    torch.save({"model": small_model.state_dict()}, path)
    return path


@pytest.mark.parametrize(
    "name",
    ["configs/sam2.1/sam2.1_hiera_t.yaml", "sam2.1/sam2.1_hiera_t.yaml", "sam2.1_hiera_t.yaml", "sam2.1_hiera_t"],
)
def test_a_shipped_config_has_all_of_its_names(name):
    assert find_config(name) == find_config("configs/sam2.1/sam2.1_hiera_t.yaml")


def test_an_unknown_config_is_named():
    with pytest.raises(InputError, match=r"no config 'sam3.yaml'.*sam2.1_hiera_t.yaml"):
        load_config("sam3.yaml")


def test_overrides_change_and_add_keys(config):
    changed = load_config(config, ["++model.num_maskmem=3", "+model.max_cond_frames_in_attn=4", "model.a.b=1e-3"])
    assert changed["model"]["num_maskmem"] == 3
    assert changed["model"]["max_cond_frames_in_attn"] == 4
    assert changed["model"]["a"] == {"b": 0.001}
    assert config["model"]["num_maskmem"] == 7  # the source stays as it was


@pytest.mark.parametrize("override", ["model.image_size", "=3", "++"])
def test_a_malformed_override_is_named(config, override):
    with pytest.raises(InputError, match="must look like"):
        load_config(config, [override])


def test_overrides_reach_the_model():
    model = build_sam2(NANO, device="cpu", hydra_overrides_extra=[*SMALL, "++model.num_maskmem=3"])
    assert (model.image_size, model.num_maskmem) == (64, 3)
    assert model.maskmem_tpos_enc.shape[0] == 3
    assert not model.training
    assert model.sam_mask_decoder.dynamic_multimask_via_stability
    plain = build_sam2(NANO, device="cpu", mode="train", hydra_overrides_extra=SMALL, apply_postprocessing=False)
    assert plain.training
    assert not plain.sam_mask_decoder.dynamic_multimask_via_stability


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.colour=red", r"unknown key model\.colour: SAM2Base"),
        ("model.image_encoder.trunk.depth=3", r"unknown key model\.image_encoder\.trunk\.depth: Hiera"),
        ("model.memory_attention.layer.self_attention.heads=2", r"self_attention\.heads: RoPEAttention"),
        ("model.image_encoder.trunk._target_=timm.Swin", r"model\.image_encoder\.trunk\._target_ names 'timm\.Swin'"),
        ("model._target_=sam2.modeling.memory_encoder.CXBlock", r"unknown key|not a SAM 2 model"),
        ("model.image_encoder.neck.backbone_channel_list=[8, 4, 2, 1]", r"backbone_channel_list \[8, 4, 2, 1\]"),
        ("model.memory_attention.layer.activation=tanh", "activation must be one of relu, gelu, glu"),
        ("model.image_encoder.trunk.window_spec=[8, 4]", "window_spec"),
        ("model.pred_obj_scores=false", "fixed_no_obj_ptr needs pred_obj_scores"),
    ],
)
def test_what_does_not_fit_is_named(config, override, message):
    with pytest.raises(InputError, match=message):
        build_model(load_config(config, [override]))


def test_a_missing_key_is_named(config):
    del config["model"]["memory_encoder"]["mask_downsampler"]
    with pytest.raises(InputError, match=r"model\.memory_encoder does not build: .*mask_downsampler"):
        build_model(config)


# the layout of Meta's files, and what a fork for medical volumes makes of it
FORK = """# @package _global_

# Model
model:
  _target_: sam2.sam2_video_predictor_npz.SAM2VideoPredictorNPZ
  image_encoder:
    _target_: sam2.modeling.backbones.image_encoder.ImageEncoder
    scalp: 1
    trunk:
      _target_: sam2.modeling.backbones.hieradet.Hiera
      embed_dim: 96
      num_heads: 1
      stages: [1, 2, 7, 2]
      global_att_blocks: [5, 7, 9]
      window_pos_embed_bkg_spatial_size: [7, 7]
    neck:
      _target_: sam2.modeling.backbones.image_encoder.FpnNeck
      position_encoding:
        _target_: sam2.modeling.position_encoding.PositionEmbeddingSine
        num_pos_feats: 256
        normalize: true
        scale: null
        temperature: 10000
      d_model: 256
      backbone_channel_list: [768, 384, 192, 96]
      fpn_top_down_levels: [2, 3]
      fpn_interp_model: nearest

  memory_attention:
    _target_: sam2.modeling.memory_attention.MemoryAttention
    d_model: 256
    pos_enc_at_input: true
    layer:
      _target_: sam2.modeling.memory_attention.MemoryAttentionLayer
      activation: relu
      dim_feedforward: 2048
      dropout: 0.1
      pos_enc_at_attn: false
      self_attention:
        _target_: sam2.modeling.sam.transformer.RoPEAttention
        rope_theta: 10000.0
        feat_sizes: [32, 32]
        embedding_dim: 256
        num_heads: 1
        downsample_rate: 1
        dropout: 0.1
      d_model: 256
      pos_enc_at_cross_attn_keys: true
      pos_enc_at_cross_attn_queries: false
      cross_attention:
        _target_: sam2.modeling.sam.transformer.RoPEAttention
        rope_theta: 10000.0
        feat_sizes: [32, 32]
        rope_k_repeat: True
        embedding_dim: 256
        num_heads: 1
        downsample_rate: 1
        dropout: 0.1
        kv_in_dim: 64
    num_layers: 4

  memory_encoder:
    _target_: sam2.modeling.memory_encoder.MemoryEncoder
    out_dim: 64
    position_encoding:
      _target_: sam2.modeling.position_encoding.PositionEmbeddingSine
      num_pos_feats: 64
      normalize: true
      scale: null
      temperature: 10000
    mask_downsampler:
      _target_: sam2.modeling.memory_encoder.MaskDownSampler
      kernel_size: 3
      stride: 2
      padding: 1
    fuser:
      _target_: sam2.modeling.memory_encoder.Fuser
      layer:
        _target_: sam2.modeling.memory_encoder.CXBlock
        dim: 256
        kernel_size: 7
        padding: 3
        layer_scale_init_value: 1e-6
        use_dwconv: True  # depth-wise convs
      num_layers: 2

  num_maskmem: 7
  image_size: 512
  sigmoid_scale_for_mem_enc: 20.0
  sigmoid_bias_for_mem_enc: -10.0
  use_mask_input_as_output_without_sam: true
  directly_add_no_mem_embed: true
  no_obj_embed_spatial: true
  use_high_res_features_in_sam: true
  multimask_output_in_sam: true
  iou_prediction_use_sigmoid: True
  use_obj_ptrs_in_encoder: true
  add_tpos_enc_to_obj_ptrs: true
  proj_tpos_enc_in_obj_ptrs: true
  use_signed_tpos_enc_to_obj_ptrs: true
  only_obj_ptrs_in_the_past_for_eval: true
  pred_obj_scores: true
  pred_obj_scores_mlp: true
  fixed_no_obj_ptr: true
  multimask_output_for_tracking: true
  use_multimask_token_for_obj_ptr: true
  multimask_min_pt_num: 0
  multimask_max_pt_num: 1
  use_mlp_for_obj_ptr_proj: true
  compile_image_encoder: False
  fill_hole_area: 8
"""


def test_a_forks_yaml_builds_unmodified(tmp_path):
    path = tmp_path / "sam2.1_hiera_t512.yaml"
    path.write_text(FORK)
    with torch.device("meta"):
        model = build_model(load_config(path))
        same = build_model(load_config(FORK))
        official = build_model(load_config("sam2.1_hiera_t"))
    assert model.image_size == same.image_size == 512
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    assert shapes == {key: value.shape for key, value in official.state_dict().items()}


def test_1e_6_is_a_number():
    block = load_config(FORK)["model"]["memory_encoder"]["fuser"]["layer"]
    assert block["layer_scale_init_value"] == 1e-6


@pytest.mark.parametrize("text", ["model: [1, 2\n", "- a\n- b\n", "trainer: {}\n\n", "model: 3\n\n"])
def test_yaml_that_is_no_model_config(text):
    with pytest.raises(InputError, match=r"not a YAML file|no part 'model'"):
        load_config(text)


def test_video_predictor_takes_its_settings_from_the_config():
    extra = [*SMALL, "++model.non_overlap_masks=true", "++model.add_all_frames_to_correct_as_cond=true"]
    predictor = build_sam2_video_predictor(NANO, device="cpu", hydra_overrides_extra=extra)
    assert predictor.non_overlap_masks
    assert predictor.add_all_frames_to_correct_as_cond
    assert predictor.fill_hole_area == 8
    assert predictor.model.binarize_mask_from_pts_for_mem_enc
    plain = build_sam2_video_predictor(NANO, device="cpu", hydra_overrides_extra=SMALL, apply_postprocessing=False)
    assert not plain.non_overlap_masks
    assert plain.fill_hole_area == 0
    assert not plain.model.binarize_mask_from_pts_for_mem_enc


def test_checkpoint_is_loaded(checkpoint, small_model):
    model = build_sam2(NANO, checkpoint, device="cpu", hydra_overrides_extra=SMALL)
    for key, value in small_model.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key
    predictor = build_sam2_video_predictor(NANO, str(checkpoint), device="cpu", hydra_overrides_extra=SMALL)
    assert torch.equal(predictor.model.no_mem_embed, small_model.no_mem_embed)


def test_no_random_weights_are_drawn_for_a_checkpoint(checkpoint, monkeypatch):
    def drawn(*_, **__):
        raise AssertionError("they take longer than the checkpoint")

    monkeypatch.setattr(torch.Tensor, "uniform_", drawn)
    load_model(checkpoint, device="cpu", config="cells-nano", image_size=96)
    with pytest.raises(AssertionError):
        build_sam2(NANO, None, device="cpu", hydra_overrides_extra=SMALL)


def test_load_model_by_path(checkpoint, small_model):
    model = load_model(checkpoint, device="cpu", config="cells-nano", image_size=96)
    assert model.image_size == 96
    assert not model.training
    assert torch.equal(model.no_mem_embed, small_model.no_mem_embed)


def test_checkpoint_of_another_size_is_refused(checkpoint):
    with pytest.raises(InputError):
        build_sam2("sam2.1_hiera_t", checkpoint, device="cpu")


def test_missing_and_truncated_checkpoints(tmp_path, checkpoint):
    with pytest.raises(InputError, match="no checkpoint file"):
        build_sam2(NANO, tmp_path / "none.pt", device="cpu", hydra_overrides_extra=SMALL)
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(InputError, match=str(checkpoint.name)):
        build_sam2(NANO, checkpoint, device="cpu", hydra_overrides_extra=SMALL)


def test_models_of_the_hub(monkeypatch, tmp_path):
    """The id decides on the config, the file comes from the hub."""
    from sam2_core.weights import hub

    asked = []
    state = build_model(load_config("sam2_hiera_t")).state_dict()
    path = tmp_path / "sam2_hiera_tiny.pt"
    torch.save({"model": state}, path)
    monkeypatch.setattr(hub, "download_from_hub", lambda model_id: asked.append(model_id) or path)
    model = build_sam2_hf("facebook/sam2-hiera-tiny", device="cpu")
    assert torch.equal(model.no_mem_embed, state["no_mem_embed"])
    predictor = build_sam2_video_predictor_hf("facebook/sam2-hiera-tiny", device="cpu")
    assert torch.equal(predictor.model.no_mem_embed, state["no_mem_embed"])
    assert asked == ["facebook/sam2-hiera-tiny"] * 2


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), "auto"])
def test_devices_that_are_there(device):
    assert resolve_device(device).type in (("cpu", "cuda", "mps") if device == "auto" else ("cpu",))


def test_devices_that_are_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="'cuda' is not available on this machine: choose auto or cpu"):
        resolve_device("cuda")
    with pytest.raises(InputError, match="no device 'gpu': choose auto, cpu, cuda or mps"):
        resolve_device("gpu")
    with pytest.raises(InputError, match="not available"):
        resolve_device("xpu")
