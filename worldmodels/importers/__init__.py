"""World models that others trained, converted to our V, M and C with equal outputs.

    imported = read_json_weights("WorldModelsExperiments/carracing")   # Ha & Schmidhuber's own
    imported = read_checkpoints("exp_dir")                             # Tallec, Blier & Kalainathan
    imported.world.encode(frames)
    imported.controller.act(z, h, c)

No code in the files is run: JSON is data, and only tensors and plain values of a pickle are read.
`docs/weights.md` lists the mapping of weights and the remaining differences.
"""

from worldmodels.importers.checkpoints import read_checkpoints
from worldmodels.importers.json_weights import read_json_weights
from worldmodels.importers.source import ForeignWeightsError, Imported

__all__ = ["ForeignWeightsError", "Imported", "read_checkpoints", "read_json_weights"]
