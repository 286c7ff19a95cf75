"""The secrets that Label Studio and the backend share: credentials.py FILE [show].

Made at the first start, as lines for a shell: a user of Label Studio for the backend, whose token is the backend's, and
the secret at the head of the backend's paths. With "show" it prints the address to connect in Label Studio.
"""

import os
import secrets
import sys
from pathlib import Path

file = Path(sys.argv[1])
if not file.exists():
    token = secrets.token_hex(20)
    values = {
        "LABEL_STUDIO_USERNAME": "sam2-backend@localhost",
        "LABEL_STUDIO_PASSWORD": secrets.token_hex(20),
        "LABEL_STUDIO_USER_TOKEN": token,
        "LABEL_STUDIO_API_KEY": token,
        "SAM2_SERVE_SECRET": secrets.token_hex(16),
    }
    partial = file.with_suffix(".partial")
    partial.write_text("".join(f"export {name}={value}\n" for name, value in values.items()))
    os.chmod(partial, 0o644)  # read by the users of both containers, and by nobody else: the volume is theirs alone
    partial.replace(file)
if sys.argv[2:] == ["show"]:
    [secret] = [line.partition("=")[2] for line in file.read_text().splitlines() if "SAM2_SERVE_SECRET" in line]
    print(f"http://backend:9090/{secret}")
