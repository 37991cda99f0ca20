"""A small software renderer: triangles with one colour each, rotated about the vertical axis, seen from above.

Orthographic, white background, Lambert shading, a z-buffer over all (triangle, pixel) pairs at once, and
``SAMPLES`` x ``SAMPLES`` samples per pixel. The same numbers on every machine; no graphics driver is needed.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cgankd.core import extras
from cgankd.core.errors import UserError

ELEVATION = 20.0  # degrees that the camera looks down
MARGIN = 1.05  # half the image's side, in units of the object's largest extent over all yaw angles
AMBIENT = 0.4  # brightness of a face parallel to the light
LIGHT = np.array([-0.4, 0.6, 0.7]) / np.linalg.norm([-0.4, 0.6, 0.7])  # towards the light, in camera coordinates
SAMPLES = 3
SUFFIXES = (".obj", ".glb")

Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Mesh:
    """A mesh of F triangles: [F, 3, 3], corners as (x, y up, z). colours: [F, 3] in [0, 1]."""

    triangles: Floats
    colours: Floats

    def framed(self) -> Mesh:
        """The mesh centred, and scaled to fit into [-1, 1] on screen at every yaw angle."""
        corners = self.triangles.reshape(-1, 3)
        corners = corners - (corners.max(axis=0) + corners.min(axis=0)) / 2
        around = float(np.hypot(corners[:, 0], corners[:, 2]).max())
        tilt = math.radians(ELEVATION)
        above = float(np.abs(corners[:, 1]).max()) * math.cos(tilt) + around * math.sin(tilt)
        return Mesh((corners / (MARGIN * max(around, above))).reshape(-1, 3, 3), self.colours)


def load_mesh(path: Path) -> Mesh:
    """The mesh of an .obj (with its .mtl and textures) or .glb file, y up.

    A face with a texture gets one colour: the texture's mean over its corners and centre. Raises UserError where
    trimesh isn't installed, or the file has no triangle.
    """
    trimesh = extras.opened("trimesh", "rendering", "render")
    try:
        parts: list[Any] = trimesh.load_scene(path).dump()
        triangles = [np.asarray(part.triangles, dtype=np.float64) for part in parts if hasattr(part, "faces")]
        colours = [_face_colours(part) for part in parts if hasattr(part, "faces")]
    except Exception as error:  # loaders raise many kinds of errors for broken files
        raise UserError(f"{path}: not readable as a mesh ({' '.join(str(error).split())})") from None
    if not sum(map(len, triangles)):
        raise UserError(f"{path}: has no triangle; at least one is needed")
    mesh = Mesh(np.concatenate(triangles), np.concatenate(colours))
    if not np.isfinite(mesh.triangles).all() or np.ptp(mesh.triangles.reshape(-1, 3), axis=0).max() == 0:
        raise UserError(f"{path}: its corners are not finite, or all the same point; allowed: distinct finite points")
    return mesh


def _face_colours(part: Any) -> Floats:
    """[F, 3] in [0, 1] of one of trimesh's parts: its own colours, its material's, or its texture's."""
    from trimesh.visual import uv_to_color

    count = len(part.faces)
    material = getattr(part.visual, "material", None)
    if material is None:
        colours = np.asarray(part.visual.face_colors)
    else:
        image = getattr(material, "image", None) or getattr(material, "baseColorTexture", None)
        if image is None or part.visual.uv is None:
            colours = np.tile(np.asarray(material.main_color), (count, 1))
        else:
            corners = np.asarray(part.visual.uv)[part.faces]  # [F, 3, 2]
            spots = np.concatenate([corners, corners.mean(axis=1, keepdims=True)], axis=1)
            colours = np.asarray(uv_to_color(spots.reshape(-1, 2), image)).reshape(count, 4, -1).mean(axis=1)
    return np.asarray(colours[:, :3], dtype=np.float64) / 255.0


def render(mesh: Mesh, degrees: float, size: int) -> npt.NDArray[np.uint8]:
    """uint8 [size, size, 3]: a framed mesh rotated counter-clockwise (seen from above) by ``degrees``."""
    side = size * SAMPLES
    triangles = _turned(mesh.triangles, degrees)
    face = nearest(triangles, side)
    shade = np.abs(_normals(triangles) @ LIGHT)  # abs, because in many meshes some normals point inwards
    lit = mesh.colours * (AMBIENT + (1 - AMBIENT) * shade)[:, None]
    picture = np.ones((side * side, 3))
    picture[face >= 0] = lit[face[face >= 0]]
    picture = picture.reshape(size, SAMPLES, size, SAMPLES, 3).mean(axis=(1, 3))
    return np.rint(picture * 255).astype(np.uint8)


def _turned(triangles: Floats, degrees: float) -> Floats:
    """Corners in camera coordinates: x right, y up, z towards the camera."""
    yaw, tilt = math.radians(degrees), math.radians(ELEVATION)
    about_y = np.array([[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, math.cos(tilt), -math.sin(tilt)], [0, math.sin(tilt), math.cos(tilt)]])
    return triangles @ (about_x @ about_y).T


def _normals(triangles: Floats) -> Floats:
    """Unit normals [F, 3]; zero where a triangle has no area."""
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.divide(normals, length, out=np.zeros_like(normals), where=length > 0)


def nearest(triangles: Floats, side: int) -> npt.NDArray[np.int64]:
    """The triangle in front at each of side x side pixels (rows from the top), [side * side]; -1 for none.

    triangles: [F, 3, 3] in camera coordinates; the screen is [-1, 1] x [-1, 1]. A triangle covers a pixel whose centre
    is inside it; of two equally near triangles the first in the list is in front.
    """
    x = (triangles[..., 0] + 1) * side / 2 - 0.5  # pixel centres have whole coordinates
    y = (1 - triangles[..., 1]) * side / 2 - 0.5
    left, right = _whole(x, side)
    top, bottom = _whole(y, side)
    wide = np.maximum(right - left + 1, 0)
    pairs = wide * np.maximum(bottom - top + 1, 0)  # pixels in each triangle's bounding box
    face = np.repeat(np.arange(len(triangles)), pairs)
    inside_box = np.arange(len(face)) - np.repeat(np.cumsum(pairs) - pairs, pairs)
    column = left[face] + inside_box % wide[face]
    row = top[face] + inside_box // wide[face]

    area = _cross(x[:, 0], y[:, 0], x[:, 1], y[:, 1], x[:, 2], y[:, 2])
    weights = []  # barycentric: the area opposite to each corner, divided by the triangle's area
    with np.errstate(divide="ignore", invalid="ignore"):
        for b, c in ((1, 2), (2, 0), (0, 1)):
            part = _cross(column, row, x[face, b], y[face, b], x[face, c], y[face, c])
            weights.append(part / area[face])
        covered = (weights[0] >= 0) & (weights[1] >= 0) & (weights[2] >= 0)
        depth = sum(weight * triangles[face, corner, 2] for corner, weight in enumerate(weights))
    pixel, face, depth = (row * side + column)[covered], face[covered], np.asarray(depth)[covered]
    order = np.lexsort((face, -depth, pixel))
    first = np.r_[True, np.diff(pixel[order]) > 0][: len(order)]
    out = np.full(side * side, -1, dtype=np.int64)
    out[pixel[order][first]] = face[order][first]
    return out


def _whole(values: Floats, side: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The first and last whole coordinate on screen within each triangle."""
    low, high = np.ceil(values.min(axis=1)), np.floor(values.max(axis=1))
    return np.maximum(low, 0).astype(np.int64), np.minimum(high, side - 1).astype(np.int64)


def _cross(ax: Any, ay: Any, bx: Any, by: Any, cx: Any, cy: Any) -> Any:
    """Twice the signed area of the triangle a, b, c."""
    return (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
