"""Print what the project needs, without the project: requirements.py PYPROJECT EXTRA...

So the image has its dependencies in a layer that stays as it is while only the source changes.
"""

import sys
import tomllib

with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)["project"]
needed = list(project["dependencies"])
for extra in sys.argv[2:]:
    needed += project["optional-dependencies"][extra]
print(*needed, sep="\n")
