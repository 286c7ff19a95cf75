"""napari with a sample and the *Segment* widget open beside it: `python -m napari_sam2.demo [SAMPLE]`."""

from __future__ import annotations

import sys

import napari

SAMPLES = ("nuclei-in-depth", "cells-in-time")


def main(sample: str = SAMPLES[0]) -> None:
    """Open the window, and wait until it is closed."""
    viewer = napari.Viewer(title="napari: SAM 2")
    viewer.open_sample("napari-sam2", sample)
    viewer.window.add_plugin_dock_widget("napari-sam2", "Segment")
    napari.run()


if __name__ == "__main__":
    if len(sys.argv) > 2 or not set(sys.argv[1:]) <= set(SAMPLES):
        sys.exit(f"usage: python -m napari_sam2.demo [{'|'.join(SAMPLES)}]")
    main(*sys.argv[1:])
