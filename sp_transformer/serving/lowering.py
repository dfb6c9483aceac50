"""A function of tensors -> StableHLO whose arguments are plain arrays, variables among them."""

import dataclasses
import hashlib
import re
from collections.abc import Callable

import numpy as np
import tensorflow as tf

_INPUT_SEED = 0
_NUMPY_TYPES = {
    "bf16": "bfloat16",
    "f32": "float32",
    "f64": "float64",
    "i1": "bool",
    "i32": "int32",
    "i64": "int64",
    "ui8": "uint8",
    "ui32": "uint32",
    "ui64": "uint64",
}
_LOCATION = re.compile(
    r' loc\((?:#loc\d*|unknown|"(?:[^"\\]|\\.)*"|fused\[[^\]]*\])\)|^#loc.*\n', re.MULTILINE
)
_PACKED_BOOLEANS = re.compile(r'dense<"0x([0-9A-F]+)">( : tensor<([0-9x]+)xi1>)')
_ALIAS = re.compile(
    r"parameter_number = (\d+) : i64}, output_index = array<i64(?:: (\d+))?>", re.ASCII
)


@dataclasses.dataclass(frozen=True)
class SeededInput:
    """An input that whoever runs the program can draw again: whole numbers, as any dtype.

    Attributes:
      name: of the argument.
      shape: static.
      dtype: that of the argument.
      high: the numbers are in [0, high).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    high: int

    def draw(self) -> np.ndarray:
        """The numbers: NumPy's default generator, drawn as int32, then cast."""
        generator = np.random.default_rng(_INPUT_SEED)
        return generator.integers(0, self.high, self.shape, np.int32).astype(self.dtype)

    def description(self) -> dict:
        """How to draw it, and the SHA-256 of its bytes, for the manifest."""
        digest = hashlib.sha256(np.ascontiguousarray(self.draw()).tobytes()).hexdigest()
        return {"seed": _INPUT_SEED, "low": 0, "high": self.high, "sha256": digest}


@dataclasses.dataclass(frozen=True)
class LoweredProgram:
    """A function and its StableHLO.

    Attributes:
      text: the StableHLO module; its entry is `main`.
      arguments: one dict an argument, in order: kind ("input", "weight", "optimizer", "variable" or "constant"),
        name, shape, dtype.
      outputs: one dict an output, in order: kind ("result" or "update"), name, shape, dtype; an update names the
        `argument` (index) whose new value it is. XLA takes that argument's memory for it.
      sources: what the value of each argument comes from: a SeededInput, a tf.Variable or a tensor.
      function: takes the inputs and returns a dict of the results; changes the variables as the program does.
    """

    text: str
    arguments: list[dict]
    outputs: list[dict]
    sources: list
    function: Callable

    @property
    def variables(self) -> list[tf.Variable]:
        """Those among the sources."""
        return [source for source in self.sources if isinstance(source, tf.Variable)]


def lower(function, inputs, variables=()) -> LoweredProgram:
    """Compiles a function of tensors to StableHLO, its variables turned into arguments.

    Args:
      function: takes tensors in the order of `inputs`, returns a dict {name: tensor}. Shapes must be static.
      inputs: list of SeededInput.
      variables: (kind, name, keras.Variable) of those that it may read; others are named by TensorFlow.

    Returns:
      The LoweredProgram.

    Raises:
      RuntimeError: if the module's arguments or outputs are not those that this module counts on, as another
        TensorFlow might make them.
    """
    compiled = tf.function(function, jit_compile=True)
    specs = [tf.TensorSpec(entry.shape, entry.dtype, name=entry.name) for entry in inputs]
    concrete = compiled.get_concrete_function(*specs)
    text = compiled.experimental_get_compiler_ir(*specs)(stage="stablehlo")
    # The locations are paths of this machine and a third of the text.
    text = _PACKED_BOOLEANS.sub(_spelled_out, _LOCATION.sub("", text))
    argument_types, output_types = _signature(text)

    arguments = [
        {"kind": "input", "name": entry.name, "shape": list(entry.shape), "dtype": entry.dtype}
        for entry in inputs
    ]
    sources = list(inputs)
    for kind, name, tensor in _captures(concrete, variables):
        shape, dtype = list(tensor.shape), tensor.dtype.name
        arguments.append({"kind": kind, "name": name, "shape": shape, "dtype": dtype})
        sources.append(tensor)
    _expect("argument", argument_types, arguments)

    # Keys of a dict are sorted by TensorFlow, in outputs as in everything.
    outputs = [
        {"kind": "result", "name": name, "shape": list(tensor.shape), "dtype": tensor.dtype.name}
        for name, tensor in sorted(concrete.structured_outputs.items())
    ]
    aliases = {int(output or 0): int(argument) for argument, output in _ALIAS.findall(text)}
    for output in range(len(outputs), len(output_types)):
        if output not in aliases:
            raise RuntimeError(
                f"output {output} of the StableHLO is neither one of the {len(outputs)} results nor the "
                f"new value of a variable; TensorFlow {tf.__version__} orders outputs otherwise than "
                "2.20 and 2.21"
            )
        argument = arguments[aliases[output]]
        outputs.append({**argument, "kind": "update", "argument": aliases[output]})
    _expect("output", output_types, outputs)
    return LoweredProgram(text, arguments, outputs, sources, compiled)


def _spelled_out(constant: re.Match) -> str:
    """Booleans as a list, where TensorFlow writes eight to a byte: other versions of MLIR read a byte for each."""
    shape = [int(side) for side in constant[3].split("x")]
    packed = np.frombuffer(bytes.fromhex(constant[1]), np.uint8)
    count = int(np.prod(shape))
    if packed.size != -(-count // 8):
        raise RuntimeError(
            f"TensorFlow {tf.__version__} writes {count} constant booleans as {packed.size} bytes, which is not eight "
            "to a byte as in 2.21"
        )
    values = np.unpackbits(packed, bitorder="little")[:count].astype(bool).reshape(shape)
    return f"dense<{str(values.tolist()).lower()}>{constant[2]}"


def _signature(text) -> tuple[list[tuple], list[tuple]]:
    """(shape, dtype) of main's arguments and outputs."""
    header = re.search(r"func\.func (?:public )?@main\((.*?)\) -> (.*?) \{\n", text)
    if header is None:
        raise RuntimeError(
            f"the StableHLO that TensorFlow {tf.__version__} makes has no function main"
        )
    return tuple(
        [_parse_type(entry) for entry in re.findall(r"tensor<([^>]*)>", part)]
        for part in header.groups()
    )


def _parse_type(entry: str) -> tuple[list[int], str]:
    *sides, dtype = entry.split("x")
    if dtype not in _NUMPY_TYPES:
        raise RuntimeError(f"tensor<{entry}> has a type other than {sorted(_NUMPY_TYPES)}")
    return [int(side) for side in sides], _NUMPY_TYPES[dtype]


def _captures(concrete, variables):
    """(kind, name, tensor or tf.Variable) of what a function captures, in the order of the arguments."""
    known = {
        id(variable.value.handle): (kind, name, variable.value)
        for kind, name, variable in variables
    }
    others = {id(variable.handle): variable for variable in concrete.graph.variables}
    captures = []
    for external, _ in concrete.graph.captures:
        if external.dtype != tf.resource:
            captures.append(("constant", f"constant_{len(captures)}", external))
        elif id(external) in known:
            captures.append(known[id(external)])
        else:
            variable = others[id(external)]
            captures.append(("variable", variable.name, variable))
    return captures


def _expect(what, types, described) -> None:
    """Raises RuntimeError unless the module's types are those of the description."""
    expected = [(entry["shape"], entry["dtype"]) for entry in described]
    if types == expected:
        return
    number = next(
        (n for n, pair in enumerate(zip(types, expected, strict=False)) if pair[0] != pair[1]),
        min(len(types), len(expected)),
    )
    raise RuntimeError(
        f"the StableHLO has {len(types)} {what}s where {len(expected)} are expected; {what} {number} differs "
        f"first: {types[number : number + 1]} is not {described[number : number + 1]}. TensorFlow "
        f"{tf.__version__} lowers otherwise than 2.20 and 2.21"
    )
