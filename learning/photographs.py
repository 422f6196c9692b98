"""Photographs of unknown origin: which decoders may look at them, and which way up they are.

Cameras store what the sensor saw, and say in EXIF how they were held.
"""

from pathlib import Path

from PIL import Image

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""Decoders that may look at a file; others can start programs or read many files (EPS)."""
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_rgb(path: Path) -> Image.Image:
    """A picture as it is stored, in RGB, with its EXIF.

    Raises:
        ValueError: one line, if it is none of `FORMATS` or damaged.
    """
    try:
        with Image.open(path, formats=FORMATS) as file:
            return file.convert("RGB")
    except Exception as error:  # decoders raise whatever the damage leads to
        detail = " ".join(str(error).split())[:160] or type(error).__name__
        raise ValueError(f"{path}: not a picture ({detail})") from None


def camera_turn(image: Image.Image) -> Image.Transpose | None:
    """What turns an image upright; None if it is, or if its EXIF is damaged or says nothing."""
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # its reader raises whatever the damage leads to
        return None


def upright(image: Image.Image) -> Image.Image:
    """An image as the camera was held."""
    turn = camera_turn(image)
    return image if turn is None else image.transpose(turn)
