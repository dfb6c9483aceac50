"""The examples of docs/serving.md against the signatures of an export, in JSON and as gRPC messages."""

import base64
import concurrent.futures
import json
import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "serving.md"
SIGNATURES = ("serving_default", "encoded", "superpixels")
# A dimension that differs between images, superpixels or batches.
ANY = None


def example(kind, language="json"):
    (text,) = re.findall(rf"```{language} {kind}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return text


def request_tensors(signature):
    """The tensors that TensorFlow Serving makes of a request of the page, by its rules."""
    request = json.loads(example(f"request {signature}"))
    assert request["signature_name"] == signature
    if "inputs" in request:
        return {name: decoded(value) for name, value in request["inputs"].items()}
    # Rows of bare values are those of the only input.
    return {None: decoded(request["instances"])}


def decoded(value):
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return np.array([base64.b64decode(entry["b64"]) for entry in value], object)
    return np.array(value)


@pytest.fixture(scope="module")
def loaded(exported):
    return tf.saved_model.load(str(exported))


def specs(signature, kind):
    if kind == "inputs":
        return dict(signature.structured_input_signature[1].items())
    return signature.structured_outputs


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_request_of_the_page_fits_its_signature_and_is_computed(loaded, inference, name):
    signature = loaded.signatures[name]
    inputs = specs(signature, "inputs")
    found = request_tensors(name)
    if None in found:
        (only,) = inputs
        found = {only: found[None]}
    assert set(found) == set(inputs)
    tensors = {}
    for key, value in found.items():
        if inputs[key].dtype == tf.uint8:
            assert value.min() >= 0 and value.max() <= 255
        tensors[key] = tf.constant(value, inputs[key].dtype)
        assert inputs[key].shape.is_compatible_with(tensors[key].shape)
    outputs = signature(**tensors)
    pixels = request_tensors("serving_default")[None].astype(np.uint8)
    np.testing.assert_array_equal(outputs["labels"], inference.labels(pixels))


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_response_of_the_page_has_the_signatures_outputs(loaded, name):
    outputs = specs(loaded.signatures[name], "outputs")
    response = json.loads(example(f"response {name}"))
    ((kind, values),) = response.items()
    assert kind == ("outputs" if name != "serving_default" else "predictions")
    if len(outputs) == 1:
        # The only output has no name in JSON.
        values = {next(iter(outputs)): values}
    assert set(values) == set(outputs)
    for key, value in values.items():
        array = np.array(value)
        assert outputs[key].shape.is_compatible_with(array.shape), key
        assert np.issubdtype(array.dtype, np.integer) == outputs[key].dtype.is_integer, key


def test_only_signatures_with_a_row_for_each_image_are_asked_by_instances(loaded):
    for name in SIGNATURES:
        outputs = specs(loaded.signatures[name], "outputs")
        by_rows = all(tensor.shape[0] is None for tensor in outputs.values())
        request = json.loads(example(f"request {name}"))
        assert "inputs" in request or by_rows, name


def test_the_pages_table_names_every_signature_with_types_and_ranks(loaded):
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", PAGE.read_text(), re.MULTILINE)
    assert [row[0] for row in rows] == [*SIGNATURES[:1], "probabilities", *SIGNATURES[1:]]
    assert {row[0] for row in rows} == set(loaded.signatures)
    for name, _, outputs in rows:
        expected = specs(loaded.signatures[name], "outputs")
        assert set(re.findall(r"`(\w+)`", outputs)) == set(expected)
        # Names, then a type, then a shape that holds for all names since the last shape.
        waiting = []
        for key, dtype, shape in re.findall(r"`(\w+)`(?: (\w+\d+))?(?: \[(.*?)\])?", outputs):
            waiting.append((key, dtype))
            if not shape:
                continue
            dtype = dtype or waiting[-1][1]
            for waited, own in waiting:
                assert expected[waited].dtype.name == (own or dtype), waited
                assert expected[waited].shape.rank == shape.count(",") + 1, waited
            waiting = []
        assert not waiting


def test_the_pages_client_talks_to_a_server_of_the_signature(loaded, inference):
    """The page's own code, against a server that answers as TensorFlow Serving is documented to."""
    grpc = pytest.importorskip("grpc")
    apis = pytest.importorskip("tensorflow_serving.apis.prediction_service_pb2_grpc")
    from tensorflow_serving.apis import predict_pb2

    class Server(apis.PredictionServiceServicer):
        def Predict(self, request, context):
            signature = loaded.signatures[request.model_spec.signature_name]
            inputs = specs(signature, "inputs")
            assert set(request.inputs) == set(inputs)
            for name, tensor in request.inputs.items():
                assert tf.as_dtype(tensor.dtype) == inputs[name].dtype
            arrays = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
            outputs = signature(**{name: tf.constant(value) for name, value in arrays.items()})
            response = predict_pb2.PredictResponse()
            for name, value in outputs.items():
                response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
            return response

    page = {}
    exec(example("grpc", "python"), page)
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads)
        apis.add_PredictionServiceServicer_to_server(Server(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        images = np.random.default_rng(0).integers(0, 256, (1, 13, 22, 3), np.uint8)
        found = page["predict"](images, server=f"127.0.0.1:{port}")
        server.stop(None).wait()
    expected = inference.superpixels(images)
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
