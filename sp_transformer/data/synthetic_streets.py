"""Street scenes drawn by the program, with Cityscapes' 19 classes: training data without files.

A scene is a road in perspective between two sides, each a row of kerb, pavement, greenery and a
border of buildings, walls, fences and hedges, with traffic, people and street furniture drawn far
to near. Colours, light, haze and layout vary so that neither colour nor position gives a class
away; shapes do.

Legend: Y, X image height and width in pixels. World coordinates as in `street_painter`.
"""

import random

import numpy as np

from sp_transformer.data import source
from sp_transformer.data.street_scene import Scene

_SPLITS = ("train", "val")


class SyntheticStreets(source.Source):
    """Drawn street scenes; scene i of a split depends on (seed, split, i) alone.

    Args:
      height, width: size Y, X of the images in pixels, at least 32 each.
      num_images: number of images in this split.
      split: "train" or "val"; the two never share a scene.
      seed: seed of the scenes, at least 0.

    Raises:
      ValueError: for an unknown split, a size below 32 pixels, no images or a negative seed.
    """

    def __init__(
        self,
        height: int = 128,
        width: int = 256,
        num_images: int = 512,
        split: str = "train",
        seed: int = 0,
    ):
        if split not in _SPLITS:
            raise ValueError(f"synthetic_streets has no split {split!r}; use one of {_SPLITS}")
        if height < 32 or width < 32:
            raise ValueError(
                f"synthetic_streets cannot draw {height}x{width} images; "
                "the least height and width are 32 pixels"
            )
        if num_images < 1 or seed < 0:
            raise ValueError(
                f"synthetic_streets got num_images {num_images} and seed {seed}; "
                "the least are 1 and 0"
            )
        self.height = height
        self.width = width
        self.num_images = num_images
        self.split = split
        self.seed = seed

    def __len__(self) -> int:
        return self.num_images

    def name(self, index: int) -> str:
        """Name of an image, without an extension."""
        return f"{self.split}_{self._checked(index):06d}"

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws a scene.

        Args:
          index: number of the scene, 0 to len - 1.

        Returns:
          image uint8 [Y,X,3] and Cityscapes train ids uint8 [Y,X], 255 where nothing is labelled.

        Raises:
          IndexError: if there is no such image.
        """
        entropy = [self.seed, _SPLITS.index(self.split), self._checked(index)]
        generator = np.random.default_rng(np.random.SeedSequence(entropy))
        # Python's generator draws single numbers ten times faster than NumPy's.
        rnd = random.Random(int(generator.integers(2**62)))
        return Scene(self.height, self.width, rnd).draw(generator)

    def _checked(self, index: int) -> int:
        if not 0 <= index < self.num_images:
            raise IndexError(f"image {index} of {self.num_images} in split {self.split!r}")
        return int(index)
