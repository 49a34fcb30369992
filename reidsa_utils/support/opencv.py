"""OpenCV, or one sentence about what is missing: `from .support.opencv import cv2`."""

try:
    import cv2
except ImportError as error:
    raise ImportError(
        f"opencv-python cannot be loaded ({error}); install the requirements, and on a bare Debian "
        "or Ubuntu also `apt-get install libgl1 libglib2.0-0 libxcb1`"
    ) from None

__all__ = ["cv2"]
