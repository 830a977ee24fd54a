"""Random views of images: shifts, crops, policies."""
