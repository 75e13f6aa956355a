"""What every implementation of an interface must keep, whatever its size: classes of tests to inherit.

A subclass provides a fixture `engine`, of whatever scope, and may replace what its class offers the engine (`captions`,
`images`, …). Run by its name, this module has no tests: pytest collects the subclasses (`Test…`).
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image, ImageDraw

from viper.engines.base import (
    Editor,
    EditResult,
    ImageSimilarityModel,
    Reconstruction,
    Reconstructor,
    Sampling,
    SimilarityModel,
    VisionLanguageModel,
    VlmOutput,
    VlmRequest,
)


def drawn(size: tuple[int, int], color: str, spot: str = "white") -> Image.Image:
    """A plain picture with a spot in it."""
    image = Image.new("RGB", size, color)
    width, height = size
    ImageDraw.Draw(image).ellipse((width // 4, height // 4, width // 2, height // 2), fill=spot)
    return image


def same(first: Image.Image, second: Image.Image) -> bool:
    """Whether two pictures have the same pixels."""
    return first.size == second.size and bool((np.asarray(first) == np.asarray(second)).all())


def close(first: Image.Image, second: Image.Image, within: int = 2) -> bool:
    """Whether no value of two pictures differs by more than `within` of 255: a batch may round differently."""
    distance = np.abs(np.asarray(first, np.int16) - np.asarray(second, np.int16))
    return first.size == second.size and int(distance.max()) <= within


class EngineContract:
    """Holds for all engines."""

    def test_the_engine_id_is_one_line_and_stays(self, engine: Any) -> None:
        assert engine.engine_id.strip()
        assert "\n" not in engine.engine_id
        assert engine.engine_id == engine.engine_id


class VisionLanguageModelContract(EngineContract):
    """`VisionLanguageModel`, with prompts of no, one and two images."""

    requests: ClassVar[tuple[VlmRequest, ...]] = (
        VlmRequest((), "Describe nothing."),
        VlmRequest((drawn((96, 96), "red"),), "Describe the image."),
        VlmRequest((drawn((96, 96), "red"), drawn((96, 96), "blue")), "What differs between the two images?"),
    )

    def test_it_is_a_vision_language_model(self, engine: VisionLanguageModel) -> None:
        assert isinstance(engine, VisionLanguageModel)

    def test_no_requests_give_no_outputs(self, engine: VisionLanguageModel) -> None:
        assert engine.generate([], Sampling()) == []

    def test_there_is_one_output_per_request_with_its_tokens_counted(self, engine: VisionLanguageModel) -> None:
        outputs = engine.generate(self.requests, Sampling(max_tokens=8, seed=1))
        assert len(outputs) == len(self.requests)
        assert all(0 <= output.tokens <= 8 for output in outputs)
        assert all(output.tokens for output in outputs if output.text)

    def test_outputs_follow_the_order_of_the_requests(self, engine: VisionLanguageModel) -> None:
        greedy = Sampling(temperature=0, max_tokens=6)
        forwards = engine.generate(self.requests, greedy)
        backwards = engine.generate(self.requests[::-1], greedy)
        assert [output.text for output in forwards] == [output.text for output in backwards[::-1]]

    def test_the_same_batch_and_seed_give_the_same_outputs(self, engine: VisionLanguageModel) -> None:
        sampling = Sampling(max_tokens=8, seed=3)
        assert engine.generate(self.requests, sampling) == engine.generate(self.requests, sampling)

    def test_its_words_come_in_by_the_door_that_cleans_them(self, engine: VisionLanguageModel) -> None:
        """`VlmOutput` makes every text clean; what is not one is not cleaned."""
        assert {type(output) for output in engine.generate(self.requests, Sampling(max_tokens=4))} == {VlmOutput}

    def test_an_output_cut_off_at_the_limit_is_not_finished(self, engine: VisionLanguageModel) -> None:
        outputs = engine.generate(self.requests, Sampling(temperature=0, max_tokens=1))
        assert all(output.tokens <= 1 for output in outputs)
        assert all(not output.finished for output in outputs if output.text)


class ReconstructorContract(EngineContract):
    """`Reconstructor`. Captions of unequal length on purpose."""

    captions: ClassVar[tuple[str, ...]] = (
        "The background is smooth gray. At top left is a small striped red ring.",
        "A cross.",
        "The background is checked teal. At center is a big plain blue cross. At top right is a small green star.",
    )
    sizes: ClassVar[tuple[tuple[int, int], ...]] = ((48, 32), (37, 50))

    def _images(self, engine: Reconstructor, captions: tuple[str, ...], seeds: Any) -> list[Image.Image]:
        results = engine.reconstruct(captions, seeds, self.sizes[0])
        assert [result.note for result in results] == [""] * len(captions)
        return [result.image for result in results if result.image is not None]

    def test_it_is_a_reconstructor(self, engine: Reconstructor) -> None:
        assert isinstance(engine, Reconstructor)

    def test_no_captions_give_no_images(self, engine: Reconstructor) -> None:
        assert engine.reconstruct([], [], self.sizes[0]) == []

    def test_its_words_come_in_by_the_door_that_cleans_them(self, engine: Reconstructor) -> None:
        assert {type(r) for r in engine.reconstruct(self.captions[:1], [0], self.sizes[0])} == {Reconstruction}

    def test_images_have_exactly_the_size_that_is_asked_for(self, engine: Reconstructor) -> None:
        for size in self.sizes:
            (result,) = engine.reconstruct(self.captions[:1], [0], size)
            assert result.note == ""
            assert result.image is not None
            assert (result.image.size, result.image.mode) == (size, "RGB")

    def test_the_seed_fixes_the_image(self, engine: Reconstructor) -> None:
        first, again, other = (self._images(engine, self.captions[:1], [seed])[0] for seed in (1, 1, 2))
        assert same(first, again)
        assert not same(first, other)

    def test_an_image_does_not_depend_on_its_batch(self, engine: Reconstructor) -> None:
        together = self._images(engine, self.captions, range(len(self.captions)))
        assert len(together) == len(self.captions)
        for index, caption in enumerate(self.captions):
            assert close(together[index], self._images(engine, (caption,), [index])[0]), caption

    def test_one_seed_is_needed_per_caption(self, engine: Reconstructor) -> None:
        with pytest.raises(ValueError, match=r"zip|argument|length"):
            engine.reconstruct(self.captions, [0], self.sizes[0])


class EditorContract(EngineContract):
    """`Editor`. Images of unequal size and aspect on purpose."""

    images: ClassVar[tuple[Image.Image, ...]] = (drawn((96, 96), "gray", "red"), drawn((61, 40), "teal", "white"))
    instructions: ClassVar[tuple[str, ...]] = ("Remove the red ring at top left.", "Make the background blue.")

    def test_it_is_an_editor(self, engine: Editor) -> None:
        assert isinstance(engine, Editor)

    def test_no_images_give_no_results(self, engine: Editor) -> None:
        assert engine.edit([], [], []) == []

    def test_its_words_come_in_by_the_door_that_cleans_them(self, engine: Editor) -> None:
        assert {type(result) for result in engine.edit(self.images[:1], self.instructions[:1], [0])} == {EditResult}

    def test_results_keep_size_and_order_of_the_originals(self, engine: Editor) -> None:
        results = engine.edit(self.images, self.instructions, range(len(self.images)))
        assert [result.image.size for result in results] == [image.size for image in self.images]
        assert {result.image.mode for result in results} == {"RGB"}

    def test_an_instruction_that_is_not_carried_out_leaves_the_image_as_it_was(self, engine: Editor) -> None:
        for image, result in zip(self.images, engine.edit(self.images, self.instructions, (0, 1)), strict=True):
            assert not result.note or same(image, result.image)

    def test_the_originals_are_left_alone(self, engine: Editor) -> None:
        before = [image.copy() for image in self.images]
        engine.edit(self.images, self.instructions, range(len(self.images)))
        assert all(map(same, before, self.images))

    def test_the_seed_fixes_the_result_whatever_the_batch(self, engine: Editor) -> None:
        together = engine.edit(self.images, self.instructions, (5, 6))
        for index, result in enumerate(together):
            (alone,) = engine.edit([self.images[index]], [self.instructions[index]], [5 + index])
            assert close(alone.image, result.image)
            assert alone.note == result.note

    def test_one_instruction_and_seed_are_needed_per_image(self, engine: Editor) -> None:
        with pytest.raises(ValueError, match=r"zip|argument|length"):
            engine.edit(self.images, self.instructions, [0])


class SimilarityContract(EngineContract):
    """`SimilarityModel`. Sentences of unequal length, one of them twice, one that is not English."""

    sentences: ClassVar[tuple[str, ...]] = (
        "At top left the color is red.",
        "A cross.",
        "Make the small dotted ring at the bottom of the picture blue, and leave everything else as it is.",
        "A cross.",
        "Das Kreuz fehlt: 圆环是红色的。",
    )

    def test_it_is_a_similarity_model(self, engine: SimilarityModel) -> None:
        assert isinstance(engine, SimilarityModel)

    def test_rows_are_of_unit_length_one_per_sentence(self, engine: SimilarityModel) -> None:
        rows = engine.embed(self.sentences)
        assert rows.dtype == np.float32
        assert rows.shape[0] == len(self.sentences)
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)

    def test_no_sentences_give_no_rows(self, engine: SimilarityModel) -> None:
        assert engine.embed([]).shape == (0, engine.embed(self.sentences[:1]).shape[1])

    def test_a_sentence_is_as_near_as_can_be_to_itself_and_farther_from_another(self, engine: SimilarityModel) -> None:
        rows = engine.embed(self.sentences)
        assert float(rows[1] @ rows[3]) == pytest.approx(1.0, abs=1e-5)
        assert float(rows[0] @ rows[1]) < 1.0 - 1e-4

    def test_a_row_does_not_depend_on_its_batch(self, engine: SimilarityModel) -> None:
        rows = engine.embed(self.sentences)
        alone = np.concatenate([engine.embed([sentence]) for sentence in self.sentences])
        np.testing.assert_allclose(rows, alone, atol=1e-5)


class ImageSimilarityContract(EngineContract):
    """`ImageSimilarityModel`."""

    images: ClassVar[tuple[Image.Image, ...]] = (
        drawn((96, 96), "gray", "red"),
        drawn((50, 120), "teal"),
        drawn((96, 96), "gray", "red"),
    )

    def test_it_is_an_image_similarity_model(self, engine: ImageSimilarityModel) -> None:
        assert isinstance(engine, ImageSimilarityModel)

    def test_rows_are_of_unit_length_one_per_image(self, engine: ImageSimilarityModel) -> None:
        rows = engine.embed_images(self.images)
        assert rows.dtype == np.float32
        assert rows.shape[0] == len(self.images)
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)

    def test_no_images_give_no_rows_of_the_same_width(self, engine: ImageSimilarityModel) -> None:
        assert engine.embed_images([]).shape == (0, engine.embed_images(self.images[:1]).shape[1])

    def test_an_image_is_as_near_as_can_be_to_itself_and_farther_from_another(
        self, engine: ImageSimilarityModel
    ) -> None:
        first, other, again = engine.embed_images(self.images)
        assert float(first @ again) == pytest.approx(1.0, abs=1e-5)
        assert float(first @ other) < 1.0 - 1e-6

    def test_a_row_does_not_depend_on_its_batch(self, engine: ImageSimilarityModel) -> None:
        rows = engine.embed_images(self.images)
        alone = np.concatenate([engine.embed_images([image]) for image in self.images])
        np.testing.assert_allclose(rows, alone, atol=1e-5)
