import numpy as np

from training import synthetic


def test_a_seed_gives_one_picture():
    for seed in range(20):
        first, again = (synthetic.picture(seed, 256) for _ in range(2))
        assert first.shape == (256, 256, 3) and first.dtype == np.uint8
        assert np.array_equal(first, again)


def test_all_kinds_are_drawn_at_any_size():
    pictures = [synthetic.picture(seed, 96) for seed in range(60)]
    assert len({picture.tobytes() for picture in pictures}) > 55
    assert any((picture == picture[0, 0]).all() for picture in pictures)  # plain colours
    assert sum(len(np.unique(picture.reshape(-1, 3), axis=0)) > 20 for picture in pictures) > 30  # text and screens
