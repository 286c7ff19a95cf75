"""What a fine-tuning run and those who follow it agree on: its presets in words, and the files in its folder."""

PRESETS = {
    "head": "the layers that make masks and scores of the decoder's tokens",
    "decoder": "mask decoder and prompt encoder; the image encoder, frozen, costs no gradients",
    "lora": "mask decoder and prompt encoder, and low-rank adapters of the image encoder's attention",
    "full": "everything",
}
"""What each preset trains; `training.presets` has the rest."""

RUN = "run.json"
"""The options of a run, and under ``before`` the measures of the model that it started from."""

LOG = "log.jsonl"
"""Steps, losses and validations; see `training.run_log`."""

TRAINED = ".trained.safetensors"
"""The weights between the end of training and that of the last measurement."""

METRICS = "metrics.json"
"""The measures before and after, and as ``main`` the mean of those that decide; empty where nothing was measured."""

LOCK = ".lock"
"""Held by the process that works in the folder of a job."""
