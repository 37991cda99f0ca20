"""The renderer against analytic projections, and data sets rendered of tiny meshes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import published
import pytest
from scipy.spatial import ConvexHull, Delaunay

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError
from cgankd.data import chairs, public, render
from cgankd.data.sources import load
from cgankd.tasks import Regression

trimesh = pytest.importorskip("trimesh")

WIDTH, HEIGHT, DEPTH = 2.0, 1.0, 0.5


@pytest.fixture
def mesh(tmp_path: Path) -> render.Mesh:
    return render.load_mesh(published.cuboid(tmp_path / "box.obj", WIDTH, HEIGHT, DEPTH)).framed()


def on_screen(degrees: float) -> np.ndarray:
    """The cuboid's eight corners, projected by hand: [8, 2], x right, y up, in units of half the picture."""
    yaw, tilt = math.radians(degrees), math.radians(render.ELEVATION)
    around = math.hypot(WIDTH, DEPTH) / 2
    scale = render.MARGIN * max(around, HEIGHT / 2 * math.cos(tilt) + around * math.sin(tilt))
    corners = []
    for x in (-WIDTH / 2, WIDTH / 2):
        for y in (-HEIGHT / 2, HEIGHT / 2):
            for z in (-DEPTH / 2, DEPTH / 2):
                right = x * math.cos(yaw) + z * math.sin(yaw)
                towards = z * math.cos(yaw) - x * math.sin(yaw)
                corners.append((right / scale, (y * math.cos(tilt) - towards * math.sin(tilt)) / scale))
    return np.array(corners)


def centres(side: int) -> np.ndarray:
    """Pixel centres [side * side, 2], rows from the top, in units of half the picture."""
    steps = (np.arange(side) + 0.5) / side * 2 - 1
    x, y = np.meshgrid(steps, -steps)
    return np.stack([x.ravel(), y.ravel()], axis=1)


@pytest.mark.parametrize("degrees", [0.0, 17.0, 61.3, 90.0])
def test_the_silhouette_is_the_projection_of_the_corners(mesh: render.Mesh, degrees: float) -> None:
    side = 300
    covered = render.nearest(render._turned(mesh.triangles, degrees), side) >= 0
    corners = on_screen(degrees)
    inside = Delaunay(corners).find_simplex(centres(side)) >= 0  # of a convex body: the hull of its corners
    assert (covered != inside).sum() <= 2  # a centre that lies on an edge
    area = covered.sum() * (2 / side) ** 2
    assert area == pytest.approx(ConvexHull(corners).volume, rel=0.015)


def test_nearest_agrees_with_a_loop_over_triangles_and_pixels() -> None:
    rng = np.random.default_rng(3)
    triangles = rng.uniform(-1.4, 1.4, (25, 3, 3))  # some reach beyond the screen
    triangles[4] = triangles[4, :1]  # and one has no area
    side = 24
    found = render.nearest(triangles, side)
    for pixel, (x, y) in enumerate(centres(side)):
        best, front = -1, -np.inf
        for number, corners in enumerate(triangles):
            try:
                weights = np.linalg.solve(np.vstack([corners[:, :2].T, np.ones(3)]), [x, y, 1.0])
            except np.linalg.LinAlgError:
                continue
            depth = float(weights @ corners[:, 2])
            if weights.min() >= 0 and depth > front:
                best, front = number, depth
        assert found[pixel] == best, pixel


def test_colours_shades_and_background(mesh: render.Mesh) -> None:
    picture = render.render(mesh, 30.0, 48).astype(int)
    assert picture.shape == (48, 48, 3)
    assert picture[0, 0].tolist() == [255, 255, 255]
    top = 2 * 48 / 4  # the blue top lies above the middle, the red sides below
    blue = (picture[..., 2] > 60) & (picture[..., 0] < 20)
    red = (picture[..., 0] > 60) & (picture[..., 2] < 20)
    assert blue.sum() > 50
    assert red.sum() > 200
    assert np.nonzero(blue)[0].mean() < top < np.nonzero(red)[0].max()
    # Lambert: the top's normal is (0, 1, 0), which the camera sees tilted by its elevation
    tilt = math.radians(render.ELEVATION)
    cosine = float(np.array([0.0, math.cos(tilt), math.sin(tilt)]) @ render.LIGHT)
    expected = 255 * (render.AMBIENT + (1 - render.AMBIENT) * cosine)
    assert np.median(picture[..., 2][blue]) == pytest.approx(expected, abs=1.0)


def test_a_glb_is_read_with_its_colours(tmp_path: Path) -> None:
    box = trimesh.creation.box(extents=(1.0, 2.0, 1.0))
    box.visual.face_colors = [0, 255, 0, 255]
    box.export(tmp_path / "box.glb")
    mesh = render.load_mesh(tmp_path / "box.glb")
    assert mesh.triangles.shape == (12, 3, 3)
    np.testing.assert_allclose(mesh.colours, np.tile([0.0, 1.0, 0.0], (12, 1)), atol=0.01)
    np.testing.assert_allclose(np.ptp(mesh.triangles.reshape(-1, 3), axis=0), [1.0, 2.0, 1.0], atol=1e-6)


def test_a_texture_colours_the_faces(tmp_path: Path) -> None:
    from PIL import Image

    half = np.zeros((8, 8, 3), np.uint8)
    half[:, :4, 0], half[:, 4:, 2] = 255, 255  # red on the left, blue on the right
    Image.fromarray(half).save(tmp_path / "paint.png")
    (tmp_path / "two.mtl").write_text("newmtl paint\nKd 1 1 1\nmap_Kd paint.png\n")
    (tmp_path / "two.obj").write_text(
        "mtllib two.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nvt .1 .1\nvt .2 .2\nvt .8 .1\nvt .9 .3\n"
        "usemtl paint\nf 1/1 2/2 3/1\nf 1/3 2/4 4/3\n"
    )
    colours = render.load_mesh(tmp_path / "two.obj").colours
    np.testing.assert_allclose(colours, [[1, 0, 0], [0, 0, 1]], atol=0.01)


def test_files_without_a_mesh_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.obj").write_text("v 0 0 0\n")
    (tmp_path / "broken.glb").write_bytes(b"glTF, but not really")
    (tmp_path / "point.obj").write_text("v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n")
    for name in ("empty.obj", "broken.glb", "point.obj"):
        with pytest.raises(UserError, match=name):
            render.load_mesh(tmp_path / name)


def test_a_rendered_folder_is_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published.cuboid(tmp_path / "meshes" / "a_chair.obj", 1, 2, 1.5)
    published.cuboid(tmp_path / "meshes" / "deep" / "b_chair.obj", 2, 1, 0.5)
    published.cuboid(tmp_path / "meshes" / "table.obj", 3, 1, 3)
    (tmp_path / "meshes" / "c_chair.obj").write_text("v 0 0 0\n")
    monkeypatch.setenv(public.VARIABLE, str(tmp_path / "home"))
    seen: list[tuple[int, int]] = []
    images, passed_over = chairs.render_folder(
        tmp_path / "meshes", chairs.default_path(), 20, 16, "*chair", lambda *step: seen.append(step)
    )
    assert images == 40
    assert len(passed_over) == 1
    assert "c_chair.obj" in passed_over[0]
    assert seen[-1] == (60, 60)
    first = chairs.default_path().read_bytes()
    chairs.render_folder(tmp_path / "meshes", tmp_path / "again.npz", 20, 16, "*chair")
    assert (tmp_path / "again.npz").read_bytes() == first
    splits = load(DataSettings(source="chairs", val_size=4))
    assert splits.task == Regression(0.0, 90.0, "degrees")
    angles = (np.arange(20) + 0.5) * 4.5
    trained = np.concatenate([splits.pool.labels.numpy(), splits.val.labels.numpy()])
    np.testing.assert_allclose(np.sort(trained), np.repeat(angles[::2], 2), atol=1e-4)
    np.testing.assert_allclose(np.sort(splits.test.labels.numpy()), np.repeat(angles[1::2], 2), atol=1e-4)
    with np.load(chairs.default_path(), allow_pickle=False) as arrays:
        assert arrays["object_names"].tolist() == ["a_chair.obj", "deep/b_chair.obj"]
        picture, row = arrays["x_test"][13], 13
        assert arrays["object_test"][row] == 1
        angle = float(arrays["y_test"][row])
    box = render.load_mesh(tmp_path / "meshes" / "deep" / "b_chair.obj").framed()
    np.testing.assert_array_equal(picture, render.render(box, angle, 16))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"angles": 19}, "allowed: 20 angles or more"),
        ({"size": 8}, "16 pixels or more"),
        ({"match": "*sofa*"}, r"none of its 1 .obj and .glb files matches '\*sofa\*'"),
        ({"match": "*"}, "1 readable mesh; at least two"),
        ({"out": Path("x.h5")}, "ends in .npz"),
        ({"folder": Path("nowhere")}, "nowhere is not a folder"),
    ],
)
def test_what_can_not_be_rendered(tmp_path: Path, change: dict[str, object], message: str) -> None:
    published.cuboid(tmp_path / "one.obj", 1, 1, 1)
    settings = {"folder": tmp_path, "out": tmp_path / "out.npz", "angles": 20, "size": 16, **change}
    with pytest.raises(UserError, match=message):
        chairs.render_folder(**settings)  # type: ignore[arg-type]
    assert not (tmp_path / "out.npz").exists()
