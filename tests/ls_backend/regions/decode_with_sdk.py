"""Decodes brush codes with label-studio-sdk's converter, in an environment that has it.

Reads JSON lines `{"rle": [...], "height": H, "width": W}`; writes for each the alpha values as a JSON line of rows.
"""

import json
import sys

from label_studio_sdk.converter.brush import decode_rle


def main() -> None:
    """Decode all lines of the standard input."""
    for line in sys.stdin:
        asked = json.loads(line)
        alpha = decode_rle(asked["rle"]).reshape(asked["height"], asked["width"], 4)[..., 3]
        print(json.dumps(alpha.tolist()))


if __name__ == "__main__":
    main()
