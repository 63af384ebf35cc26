"""``vqcodec bench``: vqcodec against widely used codecs, on a folder of images (docs/BENCHMARKS.md).

    codecs    vqcodec and its peers behind one interface, and which are missing
    measure   an image through all codecs: sizes, PSNR, MS-SSIM, SSIMULACRA2, bits of the code maps
    cost      seconds and memory of single calls
    curves    means over images, and BD-rates
    gallery   images to look at: at equal size, map by map, and samples
    report    all of these, as one dictionary
    page, text, figure    presentations of that dictionary

Its extra requirements are in ``vqcodec[bench]``; whatever is missing is listed in the report.
"""
