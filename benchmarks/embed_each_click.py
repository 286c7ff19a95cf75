"""A server that embeds the image at each click, one request at a time: the other side of `benchmarks.annotators`.

It works as the usual examples of ML backends for SAM do, with our model in the place of theirs.
"""

from __future__ import annotations

import io
import socket
import sys
import threading
from typing import Any

import numpy as np
import requests
from PIL import Image


def main(studio: str) -> None:
    """Serve until terminated; images come from the address `studio`."""
    import uvicorn
    from fastapi import FastAPI

    from sam2_core.build import load_model
    from sam2_core.labelstore.formats.brush_rle import encode_brush
    from sam2_core.predict.image_predictor import SAM2ImagePredictor

    app = FastAPI()
    predictor = SAM2ImagePredictor(load_model())
    one_at_a_time = threading.Lock()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "UP"}

    @app.post("/predict")
    def predict(request: dict[str, Any]) -> dict[str, Any]:
        context = (request["params"] or {})["context"]
        if context is None:
            return {"results": [{"result": []}]}
        regions = context["result"]
        size = np.array([regions[0]["original_width"], regions[0]["original_height"]])
        points = np.array([[r["value"]["x"], r["value"]["y"]] for r in regions]) * size / 100
        labels = np.array([int(r["is_positive"]) for r in regions])
        content = requests.get(f"{studio}{request['tasks'][0]['data']['image']}", timeout=60).content
        with one_at_a_time:
            predictor.set_image(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
            masks, scores, _ = predictor.predict(points, labels, multimask_output=False)
        value = {"format": "rle", "rle": encode_brush(masks[0] > 0), "brushlabels": ["Cell"]}
        return {"results": [{"result": [{"value": value, "score": float(scores[0])}]}]}

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        print(f"connect http://127.0.0.1:{listener.getsockname()[1]}", file=sys.stderr, flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main(sys.argv[1])
