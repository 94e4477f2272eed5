"""Examples of every command, for its `--help`: what for, and the arguments as typed in a shell."""

EXAMPLES: dict[str, list[tuple[str, str]]] = {
    "vemseg-quickstart": [
        ("everything once on a generated stack, into the folder quickstart", ""),
        ("a shorter one, somewhere else", "--output=try --slices=16 --steps=60"),
    ],
    "vemseg-phantom": [
        ("48 slices of 768 x 1024 pixels with known nuclei and nucleoli", "--output=phantom"),
        (
            "a small one of another tissue",
            "--output=small --preset=biopsy3 --shape=16,384,384 --voxel_size=80,32,32",
        ),
    ],
    "vemseg-convert": [
        (
            "a folder of TIFF slices, with TIFF labels for some of them",
            "--images=tiffs/ --output=my.zarr --voxel_size=50,4,4 --labels=nuclei=labels/nuclei/"
            " --labels=nucleoli=labels/nucleoli/",
        ),
        (
            "data that is coarse already (tens of nm): no smaller training scale is made",
            "--images=stack.tif --output=my.zarr --voxel_size=50,40,40 --downsample=1"
            " --labels=nuclei=nuclei.tif",
        ),
        (
            "a label stack in which slices 0, 25 and 50 were drawn",
            "--images=stack.h5/volumes/raw --output=my.zarr"
            " --labels=nuclei=labels.h5/volumes/nuclei --labelled_slices=nuclei=0,25,50",
        ),
    ],
    "vemseg-check": [
        ("before any training", "my.zarr"),
        ("with a plot and a file for programs", "my.zarr --plot=check.png --report=check.json"),
        ("for the crops that a configuration takes", "my.zarr --crop_size=256"),
    ],
    "vemseg-preprocess": [
        ("slices put in line", "--volume=my.zarr --output=aligned.zarr --align"),
        (
            "and their brightness made alike",
            "--volume=my.zarr --output=even.zarr --align --histogram=match --reference_slice=40",
        ),
    ],
    "vemseg-train": [
        (
            "nuclei, on a CPU",
            "--config=configs/small_unet.py --config.data.volume=my.zarr --workdir=runs/nuclei",
        ),
        (
            "nucleoli, on a GPU, from 7 of the labelled slices",
            "--config=configs/resunet.py --config.data.volume=my.zarr --workdir=runs/nucleoli"
            " \"--config.data.structures=('nucleoli',)\" --config.data.num_train_slices=7",
        ),
        (
            "both at once",
            "--config=configs/unet.py --config.data.volume=my.zarr --workdir=runs/both"
            " \"--config.data.structures=('nuclei','nucleoli')\" --config.model.num_classes=2",
        ),
    ],
    "vemseg-import-weights": [
        (
            "a network that the reference's code trained",
            "--weights=model_best_dice.pt --config=configs/unetplusplus.py"
            " --config.data.volume=my.zarr --workdir=runs/imported",
        ),
        (
            "an ImageNet classifier as the encoder, to train on",
            "--weights=resnet34.pth --encoder --config=configs/smp_unet.py"
            " --config.data.volume=my.zarr --workdir=runs/pretrained",
        ),
    ],
    "vemseg-predict": [
        ("all slices, into the volume", "--volume=my.zarr --checkpoint=runs/nuclei"),
        (
            "in one pass a slice, several times faster, some slices, and as TIFF files",
            "--volume=my.zarr --checkpoint=runs/nuclei --method=whole --slices=0:150,170"
            " --tiff_output=nuclei_tiffs",
        ),
        ("whether what was written is still the same", "--volume=my.zarr --verify"),
    ],
    "vemseg-evaluate": [
        ("on labelled slices that did not train", "--volume=my.zarr"),
        (
            "against another label, with a score of its own for slices 0 to 149",
            "--volume=my.zarr --truth=nuclei=nuclei_truth --z_ranges=0:150 --output=results/nuclei",
        ),
    ],
    "vemseg-measure": [
        ("nuclei", "--volume=my.zarr"),
        (
            "nuclei with their nucleoli, and meshes",
            "--volume=my.zarr --nucleoli=nucleoli_pred --meshes=ply --output=measured",
        ),
    ],
    "vemseg-view": [
        ("image, annotations and predictions in a browser", "my.zarr"),
        (
            "on a server: ssh -L 8765:127.0.0.1:8765 SERVER brings it to your desk",
            "my.zarr --port=8765 --layers=image,nuclei_pred --z=40",
        ),
    ],
    "vemseg-study": [
        (
            "three generated volumes, an hour on two CPU cores",
            "--preset=phantom_small --output=study",
        ),
        (
            "the published schedule on your volumes, for a GPU",
            "--preset=paper --output=study --volumes=Vol1=vol1.zarr,Vol2=vol2.zarr",
        ),
    ],
}
