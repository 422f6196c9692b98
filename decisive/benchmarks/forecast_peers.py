"""pysteps as a peer: its forecasts on our frames, computed in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

METHODS = ("extrapolation", "sprog", "steps")
"""Lucas-Kanade motion and: what is there moved along it; the same, smoothed with lead (S-PROG); an
ensemble with noise (STEPS)."""

SCRIPT = Path(__file__).with_name("forecast_pysteps.py")


class Peer:
    """The other side, in a process of its own with one thread."""

    def __init__(self, python: str) -> None:
        """Start it.

        Args:
            python: interpreter of an environment with pysteps.

        Raises:
            ValueError: if there is none, or it has no pysteps.
        """
        threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        try:
            # -P: our folder must not shadow what pysteps imports.
            self._process = subprocess.Popen(
                [python, "-P", str(SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._words,
                text=True,
                env={**os.environ, **dict.fromkeys(threads, "1")},
            )
        except OSError as error:
            self._words.close()
            raise ValueError(f"--peer-python {python}: {error.strerror}") from None
        try:
            self.version = self.ask("version")
        except ValueError:
            self.close()
            raise

    def ask(self, what: str, **request: Any) -> dict[str, Any]:
        """One question, one answer.

        Raises:
            ValueError: if the peer has ended or could not answer; with its last words.
        """
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({"ask": what, **request}) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # its last words say why
        answer = process.stdout.readline()
        if not answer:
            self._words.seek(0)
            said = self._words.read().decode("utf-8", "replace").strip().splitlines()
            raise ValueError(f"the peer ended: {said[-1][:200] if said else 'no reason given'}")
        found: dict[str, Any] = json.loads(answer)
        if "error" in found:
            raise ValueError(f"the peer could not {what}: {found['error'][:200]}")
        return found

    def forecast(
        self,
        method: str,
        frames: Floats,
        leads: int,
        *,
        minutes: float,
        kilometres: float,
        members: int,
        seed: int,
        folder: Path,
    ) -> tuple[NDArray[np.float16], float]:
        """A forecast of its.

        Args:
            method: one of `METHODS`.
            frames: `(T, H, W)` mm/h, the newest last; three or more. NaN is taken for dry.
            leads: how many steps ahead.
            minutes: between frames.
            kilometres: of a cell.
            members: of an ensemble.
            seed: of its noise.
            folder: where arrays are exchanged.

        Returns:
            `(M, L, H, W)` mm/h, NaN where a source lies outside the view; and CPU-seconds.
        """
        if method not in METHODS or len(frames) < 3:
            raise ValueError(
                f"three frames and one of {', '.join(METHODS)} are needed, got {len(frames)} and "
                f"{method!r}"
            )
        given, out = folder / "frames.npy", folder / "forecast.npy"
        np.save(given, np.asarray(frames, np.float32))
        told = self.ask(
            "forecast", method=method, frames=str(given), out=str(out), leads=leads,
            minutes=minutes, kilometres=kilometres, members=members, seed=seed,
        )  # fmt: skip
        found = np.load(out, allow_pickle=False)
        out.unlink()
        return found, float(told["seconds"])

    def close(self) -> None:
        """End it."""
        process = self._process
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=30)
        assert process.stdout is not None
        process.stdout.close()
        self._words.close()
