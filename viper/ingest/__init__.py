"""From a pool of images (a folder, an object store, an extension's) to deduplicated RGB images with ids."""
