//! Shared by the fuzz targets: the stub that lets each target build on stable.
