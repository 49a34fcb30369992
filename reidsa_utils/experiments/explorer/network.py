"""The network that runs inside the explorer's page, opened from disk.

A page that is opened from disk can load only scripts and pictures. So three things are scripts that
hold base64: the runtime (onnxruntime-web, from npm), the network in ONNX and the vectors of the
gallery.
"""

import base64
import gzip
import json
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ... import InputError
from ...batches import MEAN, STD
from ...model import ReIDNet
from ...support.files import ROOT

RUNTIME = ROOT / "docs" / "node_modules" / "onnxruntime-web" / "dist"
# The smallest build (others include WebGPU): the library, its glue code and its WebAssembly. All
# three must be of one version.
LIBRARY, GLUE, WASM = "ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"


def why_not() -> str:
    """Why the network cannot be put into a page here, in words; "" if it can."""
    missing = [name for name in (LIBRARY, GLUE, WASM) if not (RUNTIME / name).is_file()]
    if missing:
        return f"{RUNTIME} lacks {missing[0]} (npm ci --prefix docs fetches it)"
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        return f"the package {error.name} is not installed (pip install onnx onnxscript)"
    return ""


def write_network(
    folder: Path, model: ReIDNet, height: int, width: int, gallery: np.ndarray
) -> dict | None:
    """Write folder/network: runtime, network and gallery, which the page loads on demand.

    model: in eval mode. height, width: of its input. gallery: (G, C), its vectors `global`.
    Returns what the page needs before it loads these. If packages are missing, returns None and
    prints one sentence to stderr that says which.
    """
    missing = why_not()
    if missing:
        print(f"the page is made without a network of its own: {missing}", file=sys.stderr)
        return None
    place = folder / "network"
    place.mkdir()
    (place / "runtime.js").write_bytes((RUNTIME / LIBRARY).read_bytes())
    write_packed(place / "glue.js", "glue", (RUNTIME / GLUE).read_bytes())
    write_packed(place / "wasm.js", "wasm", (RUNTIME / WASM).read_bytes())
    write_packed(place / "model.js", "model", exported(model, height, width))
    codes, scales = as_int8(gallery)
    write_packed(place / "gallery.js", "gallery", scales.tobytes() + codes.tobytes())
    scripts = [path.name for path in place.iterdir()]
    megabytes = sum((place / name).stat().st_size for name in scripts) / 1e6
    return {
        "scripts": sorted(scripts),
        "megabytes": round(megabytes, 1),
        "height": height,
        "width": width,
        "mean": MEAN,
        "std": STD,
        "images": len(gallery),
        "dimensions": gallery.shape[1],
    }


def write_packed(path: Path, name: str, content: bytes) -> None:
    """Write bytes as a script: gzipped, in base64."""
    text = base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()
    path.write_text(f"EXPLORER.take({json.dumps(name)},{json.dumps(text)});\n", encoding="utf-8")


def as_int8(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vectors in 8 bits: codes (G, C) int8 and scales (G,) float32, vector = scale * code."""
    largest = np.abs(vectors).max(axis=1)
    scales = (np.maximum(largest, 1e-12) / 127).astype("<f4")
    codes = np.round(vectors / scales[:, None]).astype(np.int8)
    return codes, scales


class _Retrieval(nn.Module):
    """An image -> its vector `global`."""

    def __init__(self, model: ReIDNet):
        super().__init__()
        self.model = model

    def forward(self, image):
        return self.model.embed(image, "global")


def exported(model: ReIDNet, height: int, width: int) -> bytes:
    """A network as an ONNX file: image (1, 3, height, width) -> global (1, C).

    The weights are stored in 16 bits and used in float32.
    Raises InputError for a network that cannot be exported.
    """
    import onnx

    image = torch.zeros(1, 3, height, width)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own code
        path = Path(folder) / "network.onnx"
        try:
            program = torch.onnx.export(
                _Retrieval(model).eval(),
                (image,),
                input_names=["image"],
                output_names=["global"],
                dynamo=True,
                verbose=False,
            )
            program.save(path, external_data=False)
        except Exception as error:  # the exporter raises many kinds of errors
            raise InputError(
                f"the network could not be exported to ONNX ({type(error).__name__}); are torch, "
                "onnx and onnxscript those of requirements.txt?"
            ) from error
        network = onnx.load(path)
    _store_in_16_bits(network.graph)
    return network.SerializeToString()


def _store_in_16_bits(graph) -> None:
    """Replace the weights of each convolution by whole numbers and a scale for each output channel.

    This takes half the space of float32 and changes a vector by only about 1e-4, less than half
    precision does.
    """
    from onnx import TensorProto, helper, numpy_helper

    restoring = []
    for weight in [w for w in graph.initializer if len(w.dims) == 4]:
        name = weight.name
        values = numpy_helper.to_array(weight)  # (C_out, C_in, h, w)
        largest = np.abs(values).max(axis=(1, 2, 3), keepdims=True)
        scale = np.maximum(largest, 1e-30).astype(np.float32) / 32767
        codes = np.round(values / scale).astype(np.int16)
        weight.CopyFrom(numpy_helper.from_array(codes, f"{name}_codes"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
        cast = helper.make_node("Cast", [f"{name}_codes"], [f"{name}_cast"], to=TensorProto.FLOAT)
        product = helper.make_node("Mul", [f"{name}_cast", f"{name}_scale"], [name])
        restoring += [cast, product]
    nodes = [*restoring, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
