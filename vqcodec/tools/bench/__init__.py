"""``vqcodec bench``: vqcodec against the codecs that people use, on a folder of pictures (docs/BENCHMARKS.md).

    codecs    vqcodec and its peers behind one face, with what is missing
    measure   a picture through all codecs: sizes, PSNR, MS-SSIM, SSIMULACRA2, bits of the code maps
    cost      seconds and memory of single calls
    curves    means over pictures, and BD-rates
    gallery   pictures to look at: at equal size, map by map, and samples
    report    all of these, as one dictionary
    page, text, figure    that dictionary, shown

What it needs beyond vqcodec is the extra ``vqcodec[bench]``; what is not there is named in the report.
"""
