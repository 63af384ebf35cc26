"""From images to files and back: options, encoder, decoder and sampler, for one model on one device."""
