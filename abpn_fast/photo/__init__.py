"""Photo files in, retouched photo files out."""

from abpn_fast.photo.compare import compare
from abpn_fast.photo.photo import Photo
from abpn_fast.photo.reading import read_photo
from abpn_fast.photo.retouch import PHOTO_THUMBNAIL, Report, photo_levels, retouch_file

__all__ = ["PHOTO_THUMBNAIL", "Photo", "Report", "compare", "photo_levels", "read_photo", "retouch_file"]
