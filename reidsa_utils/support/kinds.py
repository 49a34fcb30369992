"""Finds the kind of a file from its first bytes, not from its name."""

import re

# (pattern of the first bytes, kind in words), in the order in which they are tried.
_BEGINNINGS = [
    (rb"\xff\xd8\xff", "a JPEG image"),
    (rb"\x89PNG\r\n\x1a\n", "a PNG image"),
    (rb"RIFF....WEBP", "a WebP image"),
    (rb"BM....\0\0\0\0", "a BMP image"),
    (rb"GIF8[79]a", "a GIF image"),
    (rb"II[*+]\0|MM\0[*+]", "a TIFF image"),
    (rb"....ftypavi[fs]", "an AVIF image"),
    (rb"....ftyp(hei[cmsx]|hevc|mif1|msf1)", "a HEIC image"),
    (rb"....ftyp", "an MP4 video"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (rb"\0\0\0\x0cJXL |\xff\x0a", "a JPEG XL image"),
    (rb"P[1-7]\s+\d", "a PNM image"),
    (rb"8BPS", "a Photoshop image"),
    (rb"%PDF-", "a PDF"),
    (rb"version https://git-lfs", "a Git LFS pointer"),
    (rb"(?i)(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)?<(!doctype html|html|head|body)", "an HTML page"),
    (rb"(\xef\xbb\xbf)?\s*<(svg|\?xml|[a-z])", "an XML file"),
    (rb"(\xef\xbb\xbf)?\s*[{[]\s*[\"{\[]", "a JSON file"),
    (rb"\x1f\x8b", "a gzip archive"),
    (rb"BZh\d", "a bzip2 archive"),
    (rb"\xfd7zXZ", "an xz archive"),
    (rb"7z\xbc\xaf", "a 7z archive"),
    (rb"Rar!", "a RAR archive"),
    (rb".{257}ustar", "a tar archive"),
    (rb"PK(\x03\x04|\x05\x06)", "a ZIP archive"),
    (rb"\x89HDF\r\n", "an HDF5 file"),
    (rb"\x93NUMPY", "a NumPy array"),
    (rb".{5}\0\0\0\{", "a safetensors file"),
    (rb"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19\.", "an old file of torch.save"),
    (rb"\x80[\x02-\x05]", "a pickle"),
    (rb"\0{64}", "a file of zero bytes"),
]
_KINDS = [(re.compile(begins, re.DOTALL), words) for begins, words in _BEGINNINGS]


def what_is(data: bytes) -> str:
    """The kind of a file in words ("a PNG image"); "" if it is none of these.

    data: the file, or its first 512 bytes.
    """
    head = data[:512]
    for begins, words in _KINDS:
        if begins.match(head):
            return words
    return ""
