"""Regions as Label Studio sends them, and masks to answer with, for the tests of the translation."""

import numpy as np
from hypothesis import strategies as st
from scipy import ndimage

from ls_backend.regions.label_config import parse_label_config

SIZE = (120, 160)

CONFIG = parse_label_config("""<View>
  <Image name="image" value="$image"/>
  <KeyPointLabels name="kp" toName="image" smart="true"><Label value="Cell"/><Label value="Dirt"/></KeyPointLabels>
  <RectangleLabels name="rect" toName="image" smart="true"><Label value="Cell"/><Label value="Dirt"/></RectangleLabels>
  <BrushLabels name="brush" toName="image"><Label value="Cell"/><Label value="Dirt"/></BrushLabels>
</View>""")
STACK = parse_label_config("""<View><Image name="image" valueList="$frames"/>
  <BrushLabels name="brush" toName="image"><Label value="Cell"/></BrushLabels></View>""")
VIDEO = parse_label_config("""<View><Video name="video" value="$video" frameRate="10"/>
  <VideoRectangle name="box" toName="video"/>
  <Labels name="labels" toName="video"><Label value="Cell"/><Label value="Dirt"/></Labels></View>""")


def region(kind, id, label="Cell", size=SIZE, to_name="image", **more):
    """A region of a control with labels; what is no entry of its value goes by the names of the region's own."""
    own = {key: more.pop(key) for key in ("is_positive", "parentID", "item_index") if key in more}
    value = more | ({f"{kind}labels": [label]} if label else {})
    sides = {"original_width": size[1], "original_height": size[0], "image_rotation": 0}
    return {"id": id, "type": f"{kind}labels", "to_name": to_name, "value": value, **sides, **own}


def click(id, x, y, positive=True, **more):
    """A click on the middle of a pixel, by column and row."""
    percent = {"x": (x + 0.5) / SIZE[1] * 100, "y": (y + 0.5) / SIZE[0] * 100, "width": 0.3}
    return region("keypoint", id, is_positive=positive, **percent, **more)


def rectangle(id, x0, y0, x1, y1, **more):
    """A rectangle around pixels, by their first and last column and row."""
    percent = {"x": x0 / SIZE[1] * 100, "y": y0 / SIZE[0] * 100}
    percent |= {"width": (x1 + 1 - x0) / SIZE[1] * 100, "height": (y1 + 1 - y0) / SIZE[0] * 100}
    return region("rectangle", id, **percent, **({"rotation": 0} | more))


def blob(seed, height, width, smoothness, share):
    """A mask with several parts and holes; `share` of it is foreground, at least one pixel."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(height, width)), smoothness)
    return noise >= np.quantile(noise, 1 - share)


sides = st.integers(1, 70)
blobs = st.builds(blob, st.integers(0, 10**6), sides, sides, st.floats(0, 6), st.floats(0.01, 1))
