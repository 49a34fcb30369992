"""A dozen people to look through: images and labels are those of the rendered benchmark."""

import numpy as np
import pytest

from reidsa_utils import InputError
from reidsa_utils.data import resize
from reidsa_utils.datasets.few_people import SETTINGS, few_people
from reidsa_utils.datasets.rendered import plan, render_shot


def test_all_images_of_the_people_and_a_tenth_of_the_others():
    query, gallery = few_people(3)
    shots = plan(SETTINGS)
    people = sorted({shot.pid for shot in shots if shot.split == "query"})[:3]
    assert set(query.ids) == set(people) == set(gallery.ids[gallery.ids > 0])
    for pid in people:
        of_person = [shot for shot in shots if shot.pid == pid]
        assert (query.ids == pid).sum() == sum(shot.split == "query" for shot in of_person)
        assert (gallery.ids == pid).sum() == sum(shot.split == "gallery" for shot in of_person)
    for pid in (0, -1):
        others = sum(shot.pid == pid for shot in shots)
        assert (gallery.ids == pid).sum() == -(-others // 10)
    known = gallery.ids > 0
    assert np.array_equal(gallery.people[known], gallery.ids[known])
    assert len(query) == len(query.images) == len(query.cams)


def test_images_are_those_of_the_files():
    query, _ = few_people(1)
    first = next(shot for shot in plan(SETTINGS) if shot.split == "query")
    assert query.images.shape[1:] == (192, 64, 3)
    assert np.array_equal(query.images[0], resize(render_shot(SETTINGS, first)[0], 192, 64))


def test_no_people():
    with pytest.raises(InputError, match="number is 0"):
        few_people(0)
