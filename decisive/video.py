"""MP4 films from arrays of pixels."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray


class VideoWriter:
    """Writes H.264 (yuv420p, which every player reads) through the ffmpeg of imageio-ffmpeg.

    The film is written beside its place and renamed when complete: a kill or an error leaves no
    half film, and a film that was there before stays.

    ```python
    with VideoWriter("episode.mp4", fps=10) as film:
        film.add(env.render())
    ```
    """

    def __init__(self, path: str | os.PathLike[str], fps: float, quality: float = 7.0) -> None:
        """Name a film. Nothing is written before the first frame.

        Args:
            path: the file, ending in `.mp4`.
            fps: frames per second.
            quality: 0 (small) to 10 (sharp).
        """
        self.path = Path(path)
        if self.path.suffix.lower() != ".mp4":
            raise ValueError(f"a film needs a name ending in .mp4, got {self.path}")
        if not fps > 0:
            raise ValueError(f"fps must be positive, got {fps}")
        self.fps = float(fps)
        self.quality = quality
        self.frames = 0
        self._shape: tuple[int, ...] | None = None
        self._sink: Generator[None, Any, None] | None = None
        self._beside = self.path.with_name(f".{self.path.stem}.{os.getpid()}.part.mp4")

    def add(self, frame: NDArray[np.uint8], repeat: int = 1) -> None:
        """Append a frame.

        Args:
            frame: `(H, W, 3)` uint8; all frames of a film have one shape. An odd height or width
                is padded by its last row or column, because yuv420p needs even ones.
            repeat: how many times to show it.
        """
        frame = np.asarray(frame)
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ValueError(f"frame must be (H, W, 3) uint8, got {frame.shape} {frame.dtype}")
        if self._shape is None:
            self._shape = frame.shape
        if frame.shape != self._shape:
            raise ValueError(f"all frames must be {self._shape}, got {frame.shape}")
        height, width = frame.shape[:2]
        if height % 2 or width % 2:
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        sink = self._sink or self._open(frame.shape[1], frame.shape[0])
        for _ in range(repeat):
            sink.send(np.ascontiguousarray(frame))
            self.frames += 1

    def __enter__(self) -> VideoWriter:
        """Start; the file is opened by the first frame."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Put the film in its place, or throw it away after an error."""
        try:
            if self._sink is not None:
                self._sink.close()
                self._sink = None
            if kind is None:
                if not self.frames:
                    raise ValueError(f"a film needs at least one frame: {self.path}")
                os.replace(self._beside, self.path)
        finally:
            self._beside.unlink(missing_ok=True)

    def _open(self, width: int, height: int) -> Generator[None, Any, None]:
        import imageio_ffmpeg

        self.path.parent.mkdir(parents=True, exist_ok=True)
        encode: Any = imageio_ffmpeg.write_frames  # its annotations want a whole number of fps
        sink: Generator[None, Any, None] = encode(
            str(self._beside),
            (width, height),
            fps=self.fps,
            codec="libx264",
            pix_fmt_out="yuv420p",
            quality=self.quality,
            macro_block_size=2,
            ffmpeg_log_level="error",
            output_params=["-movflags", "+faststart"],
        )
        sink.send(None)
        self._sink = sink
        return sink
