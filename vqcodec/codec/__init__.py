"""From images to files and back: options, encoder, decoder, sampler, over one model on one device."""
