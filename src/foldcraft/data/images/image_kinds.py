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
# Of files that lie among images and are none: tables, texts, annotations, archives.
OTHER_SUFFIXES = (
    *(".csv", ".tsv", ".parquet", ".xls", ".xlsx", ".json", ".jsonl", ".geojson", ".xml", ".yaml", ".yml", ".ini"),
    *(".txt", ".md", ".rst", ".html", ".htm", ".pdf", ".rtf", ".doc", ".docx", ".log", ".py", ".ipynb"),
    *(".zip", ".gz", ".tar", ".7z", ".rar", ".md5", ".sha256"),
)
