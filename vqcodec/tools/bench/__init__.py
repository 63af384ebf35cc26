"""``vqcodec bench``: vqcodec against the codecs that people use, on a folder of images (docs/BENCHMARKS.md).

    codecs    vqcodec and its peers behind one face, with what is missing
    measure   an image through all codecs: sizes, PSNR, MS-SSIM, SSIMULACRA2, bits of the code maps
    cost      seconds and memory of single calls
    curves    means over images, and BD-rates
    gallery   images to look at: at equal size, map by map, and samples
    report    all of these, as one dictionary
    page, text, figure    that dictionary, shown

What it needs beyond vqcodec is the extra ``vqcodec[bench]``; what is not there is named in the report.
"""
