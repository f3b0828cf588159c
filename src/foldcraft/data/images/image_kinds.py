"""Kinds of image files that are read, and how the names of such files end."""

# As Pillow calls them. It knows many more, some of them through other programs (PostScript through Ghostscript).
KINDS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "PPM", "JPEG2000")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")
# Of files that are read as well, and found without their extension where there is none with a more usual one.
RARE_SUFFIXES = (
    *(".jpe", ".jfif", ".apng", ".dib", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
)
ARRAY_SUFFIXES = (".npy", ".dcm", ".dicom")  # of what is no image file to Pillow; likewise
ALL_SUFFIXES = (*IMAGE_SUFFIXES, *RARE_SUFFIXES, *ARRAY_SUFFIXES)
