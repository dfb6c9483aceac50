"""SavedModels, run by TensorFlow."""

from sp_transformer.serving.runtimes import runtime


class SavedModelRuntime(runtime.Runtime):
    """A SavedModel with the signatures of serving/saved_model.py."""

    format = "saved_model"
    packages = ("tensorflow",)

    def __init__(self, folder):
        """Loads the model.

        Raises:
          ValueError: if the SavedModel is not one of ours.
        """
        super().__init__(folder)
        # Seconds, which no other format is to pay.
        import tensorflow

        self._tf = tensorflow
        self._loaded = self._tf.saved_model.load(str(folder))
        signatures = self._loaded.signatures
        missing = {"serving_default", "superpixels"} - set(signatures)
        if missing:
            raise ValueError(
                f"model {str(folder)!r} has no signature {sorted(missing)[0]!r}, only {sorted(signatures)}; export it "
                "with sp_transformer.export"
            )
        self._signatures = signatures

    def _run(self, images):
        outputs = self._signatures["superpixels"](images=self._tf.constant(images))
        return {name: value.numpy() for name, value in outputs.items()}

    def _labels(self, images):
        return self._signatures["serving_default"](images=self._tf.constant(images))[
            "labels"
        ].numpy()

    def _probabilities(self, images):
        if "probabilities" not in self._signatures:
            raise ValueError("this export has no signature 'probabilities'; export the model anew")
        outputs = self._signatures["probabilities"](images=self._tf.constant(images))
        return outputs["probabilities"].numpy()

    def _file_labels(self, images):
        if "encoded" not in self._signatures:
            return None
        # PNG loses nothing.
        files = self._tf.constant([self._tf.io.encode_png(image).numpy() for image in images])
        return self._signatures["encoded"](encoded_images=files)["labels"].numpy()


def open_export(folder):
    """The Runtime of a folder."""
    return SavedModelRuntime(folder)
