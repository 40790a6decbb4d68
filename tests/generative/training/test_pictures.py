"""Pictures of samples, and the hook of `fit` that saves them."""

import numpy as np
import pytest
import torch
from PIL import Image

from generative.training.loop import fit
from generative.training.metrics import read_metrics
from generative.training.pictures import GAP, GROUND, image_grid, point_clouds, sheet, strips
from generative.training.run import Run
from tests.generative.training.linear_run import Args, LinearLearner


def test_grid_puts_images_row_after_row():
    images = torch.arange(5)[:, None, None, None].expand(5, 3, 4, 6) / 4
    picture = image_grid(images, columns=2)
    assert picture.shape == (3 * 4 + 2 * GAP, 2 * 6 + GAP, 3)
    assert picture.dtype == np.uint8
    for i in range(5):
        top, left = i // 2 * (4 + GAP), i % 2 * (6 + GAP)
        assert (picture[top : top + 4, left : left + 6] == round(255 * i / 4)).all()
    assert (picture[4 : 4 + GAP] == GROUND).all()
    assert (picture[-4:, -6:] == GROUND).all()  # there is no sixth image


def test_small_grey_images_can_be_enlarged():
    images = torch.tensor([[0.0, 1.0], [0.5, 2.0]])[None, None]
    picture = image_grid(images, scale=3)
    expected = np.kron([[0, 255], [128, 255]], np.ones((3, 3)))
    np.testing.assert_array_equal(picture, np.repeat(expected[..., None], 3, 2))


def test_strips_stand_above_each_other():
    rows = [torch.full((3, 1, 2, 2), value) for value in (0.0, 1.0)]
    picture = strips(*rows)
    assert picture.shape == (2 * 2 + GAP, 3 * 2 + 2 * GAP, 3)
    assert picture[0, 0, 0] == 0
    assert picture[-1, 0, 0] == 255


def test_rows_stand_beside_their_labels():
    rows = torch.rand(2, 3, 3, 40, 40)
    plain, picture = strips(*rows), strips(*rows, labels=["one", "a longer label"])
    margin = picture.shape[1] - plain.shape[1]
    assert picture.shape[0] == plain.shape[0]
    np.testing.assert_array_equal(picture[:, margin:], plain)
    left = picture[:, :margin]
    ink = [(left[top : top + 40] < 128).any(2).any(0).nonzero()[0] for top in (0, 42)]
    assert 0 < ink[1][0] < ink[0][0]  # the longer one begins further to the left
    assert ink[0][-1] < margin
    assert (left[40:42] > 200).all()


def test_points_are_ink_with_the_second_axis_up():
    up = torch.tensor([[0.5, 2.5]])
    picture = point_clouds([up, -up], limit=3.0, side=6)
    left, right = picture[:, :6, 0], picture[:, 6 + GAP :, 0]
    assert np.argwhere(left == 0).tolist() == [[0, 3]]
    assert np.argwhere(right == 0).tolist() == [[5, 2]]


def test_pictures_of_a_sheet_stand_below_their_titles():
    pictures = [np.full((30, 90, 3), value, np.uint8) for value in (10, 20, 30)]
    picture = sheet(pictures, ["one", "a title that is far too long for its picture", "three"], 2)
    band = 14
    assert picture.shape == (2 * (30 + band) + GAP, 2 * 90 + GAP, 3)
    for i, value in enumerate((10, 20, 30)):
        top, left = i // 2 * (30 + band + GAP), i % 2 * (90 + GAP)
        title = picture[top : top + band, left : left + 90]
        assert (picture[top + band : top + band + 30, left : left + 90] == value).all()
        assert title.min() < 100  # there are letters
        assert (title[:, [0, -1]] == 255).all()  # and they end before the picture does


def test_clouds_may_have_titles():
    cloud = torch.zeros(3, 2)
    plain = point_clouds([cloud], side=20)
    titled = point_clouds([cloud, cloud], side=20, titles=["left", "right"])
    assert np.array_equal(titled[-20:, :20], plain)
    with pytest.raises(ValueError, match="shorter"):
        point_clouds([cloud, cloud], titles=["left"])


@pytest.mark.parametrize("shape", [(3, 4, 4), (2, 2, 4, 4), (0, 3, 4, 4)])
def test_what_is_no_image_is_refused(shape):
    with pytest.raises(ValueError, match=r"got images of shape .* needs \(N, 1 or 3, H, W\)"):
        image_grid(torch.zeros(shape))


def test_hook_is_called_after_each_logged_line_and_changes_nothing(tmp_path):
    def batches(run):
        return lambda step: torch.from_numpy(run.rng("batch", step).normal(size=(8, 3))).float()

    weights = []
    for name in ("with", "without"):
        seen = []
        with Run.open(Args(out=tmp_path / name, tensorboard=True), kind="linear") as run:
            learner = LinearLearner()

            def show(step, run=run, seen=seen):
                assert read_metrics(run.path)[-1]["step"] == step
                seen.append(step)
                picture = torch.rand(4, 5, 3).mul(255).byte().numpy()
                path = run.metrics.log_image(step, "noise", picture)
                np.testing.assert_array_equal(np.asarray(Image.open(path)), picture)

            fit(
                learner, batches(run), run, 20,
                log_every=8, on_log=show if name == "with" else None,
            )  # fmt: skip
        weights.append([p.detach().clone() for p in learner.model.parameters()])
        assert seen == ([8, 16, 20] if name == "with" else [])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    names = [path.name for path in sorted((tmp_path / "with" / "images").iterdir())]
    assert names == ["noise-000008.png", "noise-000016.png", "noise-000020.png"]
    assert any((tmp_path / "with" / "tensorboard").iterdir())


def test_only_pictures_are_logged(tmp_path):
    with (
        Run.open(Args(out=tmp_path / "run"), kind="linear") as run,
        pytest.raises(ValueError, match=r"picture x is float64 \(4, 4\)"),
    ):
        run.metrics.log_image(0, "x", np.zeros((4, 4)))
