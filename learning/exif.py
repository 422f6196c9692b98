"""Which way up a photograph is: cameras store what the sensor saw, and say how they were held."""

from PIL import Image

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
