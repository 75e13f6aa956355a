"""From a pool of images (a folder, an object store, the small world) to deduplicated RGB images with ids."""
