#!/usr/bin/env bash
# Nuclei of the HeLa SBF-SEM volume (EMPIAR-10094) from 7 labelled slices, through the binaries.
#   benchmarks/hela_sbfsem.sh DATA OUT
# DATA holds em.tif, nuclei.tif and filled_mask.tif; OUT is a new folder.
set -euo pipefail
data=$1 out=$2
config=$(dirname "$0")/../configs/hela_resunet.py
vemseg-convert --images="$data/em.tif" --output="$out/hela.zarr" --voxel_size=50,40,40 \
    --labels=nuclei="$data/nuclei.tif" --ignore="$data/filled_mask.tif" --ignore_dilation=3 \
    --downsample=1
vemseg-train --config="$config" --config.data.volume="$out/hela.zarr" --workdir="$out/run"
vemseg-predict --volume="$out/hela.zarr" --checkpoint="$out/run"
vemseg-evaluate --volume="$out/hela.zarr" --z_ranges=0:150,150:195 --output="$out/evaluation"
