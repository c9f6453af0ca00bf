import json

import numpy as np
import pytest
import torch

from medgan.errors import DataError
from medgan.metrics import verdict
from medgan.metrics.gate import ALPHA, LEVEL
from medgan.metrics.memorisation import Audit, audit
from medgan.metrics.planted import near_copy
from tests.metrics.patients import patient, patients
from tests.metrics.phantoms import ImageSet

SIZE = 48


@pytest.fixture(scope="module")
def sets():
    """Training patients, held-out patients, and images of an honest generator: patients that nobody has."""
    train, held_out = patients(0, 40, 3, SIZE), patients(1000, 40, 2, SIZE)
    return train, held_out, patients(5000, 200, 1, SIZE)[0]


def look(fake, sets, *, calibrated=True, keys=True, **changes) -> Audit:
    (train, train_keys), (held_out, held_keys), _ = sets
    return audit(
        train=ImageSet(train),
        fake=ImageSet(fake),
        held_out=ImageSet(held_out) if calibrated else None,
        train_patients=train_keys if keys else (),
        held_out_patients=held_keys if calibrated and keys else (),
        **changes,
    )


def with_copies(sets, count):
    rng = np.random.default_rng(3)
    fake = sets[2].copy()
    places = np.sort(rng.permutation(len(fake))[:count])
    originals = rng.permutation(len(sets[0][0]))[:count]
    fake[places] = [near_copy(sets[0][0][i], rng) for i in originals]
    return fake, dict(zip(places.tolist(), originals.tolist(), strict=True))


def test_an_honest_generator_passes_and_is_not_called_private(sets):
    """The text has the threshold, the power and the false alarms, and no word that promises more."""
    found = look(sets[2], sets)
    assert (found.result["verdict"], found.refused) == ("passed", False)
    assert found.result["near_copies"]["count"] == 0
    assert found.result["count_test"]["p"] > ALPHA
    assert found.result["c_t"]["p"] > 0.01
    authentic = found.result["authenticity"]
    assert authentic["p"] > 0.01
    assert 0 < authentic["null"] == pytest.approx(authentic["share"], abs=0.15)
    power, said = found.result["power"], found.result["statement"]
    assert f"none correlates with a training image by {found.result['near_copies']['ncc']:.4f} or more" in said
    assert f"Of 100 near copies planted for this audit, {100 * power['recognised']:.0f} % are recognised" in said
    assert f"{verdict.percent(power['against']['5 %'])} if 0.1 %, 1 %, 2 % and 5 % of all images were such copies." in said
    assert "come from 40 held-out patients" in said
    assert f"probability of at most {verdict.percent(found.result['false_alarm']['at_most'])}" in said
    for word in ("private", "safe", "anonymous", "guarantee"):
        assert word not in " ".join([said, *found.result["limits"]]).lower()
    json.dumps(found.result, allow_nan=False)


def test_a_generator_that_returns_training_images_is_refused(sets):
    found = look(sets[0][0], sets)
    assert found.refused
    assert found.result["refused_for"] == ["near copies", "count"]
    assert found.problem == "120 of 120 images are near copies of training slices"
    assert found.result["authenticity"]["share"] == 0
    assert found.result["c_t"]["p"] < 1e-6
    assert [pair["fake"] == pair["train"] for pair in found.pairs] == [True] * 20


def test_two_per_cent_of_planted_near_copies_are_found_by_name(sets):
    fake, planted = with_copies(sets, 4)
    found = look(fake, sets)
    assert found.refused
    copies = {pair["fake"]: pair["train"] for pair in found.pairs if pair["near_copy"]}
    assert set(copies) <= set(planted)
    assert len(copies) >= 2
    assert all(copies[i] == planted[i] for i in copies)
    assert found.problem == f"{len(copies)} of 200 images are near copies of training slices"


@pytest.mark.parametrize("turned", [lambda x: x[:, :, ::-1], lambda x: x.swapaxes(1, 2), lambda x: x[:, ::-1, ::-1]])
def test_a_mirrored_or_turned_copy_is_found(sets, turned):
    fake = sets[2][:60].copy()
    fake[17] = turned(sets[0][0][33])
    found = look(fake, sets)
    assert found.refused
    assert (found.pairs[0]["fake"], found.pairs[0]["train"]) == (17, 33)
    assert found.pairs[0]["ncc"] > 0.999


def test_brightness_and_contrast_hide_no_copy(sets):
    fake = sets[2][:60].copy()
    fake[5] = np.round(0.6 * sets[0][0][8].astype(float) + 30)
    assert look(fake, sets).result["near_copies"]["count"] == 1


def test_a_smooth_generator_is_no_copier(sets):
    """Images without noise lie nearer to everything than any real image does, and yet are nobody's."""
    smooth = patients(7000, 200, 1, SIZE, noise=0.0)[0]
    assert not look(smooth, sets).refused


def test_neighbouring_slices_do_not_hide_a_copy_and_do_not_make_one(sets):
    (train, keys), held_out, honest = sets
    # One patient whose slices are all alike: as images of one patient they do not enter d2.
    crowd = np.concatenate([train, np.repeat(patient(77, 1, SIZE), 30, axis=0)])
    crowded = ((crowd, [*keys, *["crowd"] * 30]), held_out, honest)
    assert not look(honest, crowded).refused
    fake = honest[:60].copy()
    fake[0] = crowd[-1]
    found = look(fake, crowded)
    assert found.result["near_copies"]["count"] == 1
    assert found.pairs[0]["ratio"] < 0.1


def test_images_of_unknown_patients_count_as_one_each(sets):
    found = look(sets[2][:50], sets, keys=False)
    assert (found.result["train_patients"], found.result["held_out_patients"]) == (120, 80)
    assert not found.refused
    # One image without a name is enough: whose else it is cannot be known.
    (train, keys), held_out, honest = sets
    found = look(honest[:20], ((train, [*keys[:-1], ""]), held_out, honest)).result
    assert (found["train_patients"], found["held_out_patients"], found["patients_known"]) == (120, 40, False)


def test_without_held_out_images_one_half_of_the_training_patients_calibrates(sets):
    found = look(sets[2], sets, calibrated=False)
    assert (found.result["verdict"], found.result["calibrated_on"]) == ("passed", "halves of the training patients")
    assert (found.result["calibration_patients"], found.result["held_out_patients"]) == (20, 0)
    assert found.result["false_alarm"]["at_most"] <= LEVEL * (1 + 1e-9)
    assert "come from 20 training patients, compared with the other half of them" in found.result["statement"]
    assert any("0 held-out patients: what is normal was learned from one half" in line for line in found.result["limits"])
    assert look(sets[0][0][:30], sets, calibrated=False).refused


def test_few_held_out_patients_do_not_calibrate_where_half_of_the_training_patients_are_more(sets):
    (train, keys), (held_out, held_keys), honest = sets
    few = (sets[0], (held_out[:24], held_keys[:24]), honest)
    assert look(honest[:30], few).result["calibration_patients"] == 20
    fewer = ((train[:60], keys[:60]), (held_out[:24], held_keys[:24]), honest)
    found = look(honest[:30], fewer).result
    assert (found["calibration_patients"], found["calibrated_on"]) == (12, "held-out patients")


@pytest.mark.parametrize("known", [True, False])
def test_without_enough_patients_a_fixed_correlation_is_used_and_said(sets, known):
    (train, keys), (held_out, held_keys), honest = sets
    few = ((train[:57], keys[:57] if known else ()), (held_out[:4], held_keys[:4]), honest)
    found = look(honest, few)
    assert found.result["verdict"] == "not calibrated"
    assert found.result["why_not_calibrated"] == (
        f"there are 2 held-out patients with usable images and {'19 training patients' if known else 'training images of unknown patients'}; "
        "at least 10 held-out or 20 training patients are needed"
    )
    assert found.result["near_copies"]["ncc"] == pytest.approx(0.995)
    assert found.result["false_alarm"]["at_most"] is None
    assert "fixed and not calibrated" in found.result["statement"]
    assert "how often it refuses honest images is not known" in found.result["statement"]
    assert look(train[:20], few).refused


def test_one_patient_alone_is_audited_and_what_that_cannot_see_is_said():
    """Slices of one patient: a copy is found, and the text says that every honest image may show that patient."""
    images = patient(3, 12, SIZE)
    honest = audit(train=ImageSet(images), fake=ImageSet(patients(5000, 10, 1, SIZE)[0]), train_patients=["one"] * 12)
    assert (honest.result["verdict"], honest.result["train_patients"]) == ("not calibrated", 1)
    assert "there are no held-out images and 1 training patient;" in honest.result["why_not_calibrated"]
    assert any("every honest image of this generator may show that patient" in line for line in honest.result["limits"])
    assert audit(train=ImageSet(images), fake=ImageSet(images[4:5]), train_patients=["one"] * 12).refused


def test_held_out_images_that_are_training_images_do_not_blind_the_gate(sets):
    (train, _), (held_out, keys), honest = sets
    spoiled = (sets[0], (np.concatenate([held_out, train[:30]]), [*keys, *[f"again-{i}" for i in range(30)]]), honest)
    fake, _ = with_copies(sets, 6)
    found = look(fake, spoiled)
    assert found.result["held_out_duplicates"] == 30
    assert found.refused


@pytest.mark.parametrize("calibrated", [True, False])
def test_duplicates_inside_the_data_raise_no_false_alarm_and_hide_no_copy(sets, calibrated):
    """Images that stand twice in the training set, under another patient, and once more among the held-out ones: as in PneumoniaMNIST."""
    (train, keys), (held_out, held_keys), honest = sets
    twice = (np.concatenate([train, train[:18]]), [*keys, *[f"twice-{i}" for i in range(18)]])
    spoiled = (twice, (np.concatenate([held_out, train[10:13]]), [*held_keys, "a", "b", "c"]), honest)
    assert not look(honest, spoiled, calibrated=calibrated).refused
    fake = honest.copy()
    fake[50] = train[4][:, ::-1]
    found = look(fake, spoiled, calibrated=calibrated)
    assert found.refused
    assert (found.pairs[0]["fake"], found.pairs[0]["train"]) in {(50, 4), (50, 124)}


def test_training_images_that_repeat_calibrate_nothing_where_halves_do(sets):
    """One slice of each patient stands once more under another name: neither it nor its neighbours show how near strangers are."""
    (train, keys), held_out, honest = sets
    twice = ((np.concatenate([train, train[::3]]), [*keys, *[f"again-{key}" for key in keys[::3]]]), held_out, honest)
    clean, spoiled = (look(honest[:30], some, calibrated=False).result for some in (sets, twice))
    assert spoiled["calibrated_on"] == "halves of the training patients"
    assert spoiled["count_test"]["distance"] == pytest.approx(clean["count_test"]["distance"], rel=0.1)


def test_halves_that_are_the_same_patients_twice_calibrate_nothing(sets):
    """Each of 12 patients stands under two names: about half of them are on both sides, and fewer than ten are left."""
    (train, keys), _, honest = sets
    twice = ((np.concatenate([train[:36]] * 2), [*keys[:36], *[f"again-{key}" for key in keys[:36]]]), sets[1], honest)
    found = look(honest[:30], twice, calibrated=False).result
    assert (found["train_patients"], found["verdict"]) == (24, "not calibrated")


def test_a_held_out_image_that_is_only_near_to_a_training_image_calibrates(sets):
    """Noise and a shift make it another image: so near may patients be."""
    (train, keys), (held_out, held_keys), honest = sets
    near = held_out.copy()
    near[7] = near_copy(train[50], np.random.default_rng(0))
    found = look(honest[:30], ((train, keys), (near, held_keys), honest)).result
    assert (found["held_out_duplicates"], found["calibration_patients"]) == (0, 40)
    assert found["count_test"]["distance"] < 0.2


def test_a_held_out_patient_with_an_image_in_the_training_set_is_no_stranger(sets):
    (train, keys), (held_out, held_keys), honest = sets
    some = [0, 9, 40]
    leaked = ((np.concatenate([train, held_out[some]]), [*keys, "a", "b", "c"]), (held_out, held_keys), honest)
    found = look(honest[:30], leaked).result
    assert (found["held_out_duplicates"], found["calibration_patients"]) == (3, 37)
    assert found["count_test"]["distance"] == pytest.approx(look(honest[:30], sets).result["count_test"]["distance"], rel=0.1)
    assert "3 held-out images are training images too; all images of their patients were left out of the calibration." in found["limits"]


def test_the_nearest_pairs_stand_first_and_a_copy_by_features_shows_its_own_pair(sets):
    """Of a copy that only features see, turned by 30 degrees, the pair is that of the features."""
    from scipy.ndimage import rotate

    class Rings:
        """Mean grey value of rings around the centre, which turns do not change."""

        name, sha256, resize, dim = "rings", "ab" * 32, "none", 12

        def __call__(self, images):
            y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
            ring = (np.hypot(x, y) / 2).astype(int)
            return torch.from_numpy(np.stack([images[:, 0, ring == i].mean(1) for i in range(12)], 1)).float()

    fake = sets[2][:60].copy()
    fake[21] = rotate(sets[0][0][40].astype(float), 30, axes=(1, 2), reshape=False, order=3, mode="nearest").round().clip(0, 255)
    found = look(fake, sets, extractor=Rings())
    assert found.result["near_copies"] | {"by_grey_values": 0, "by_features": 1, "count": 1} == found.result["near_copies"]
    first = found.pairs[0]
    assert (first["fake"], first["train"], first["by"], first["near_copy"]) == (21, 40, "features", True)
    assert "ncc" not in first
    others = [pair["distance"] for pair in found.pairs[1:] if not pair["counted"]]
    assert others == sorted(others)


def test_few_training_images_are_copied_several_times_to_measure_power(sets):
    few = (sets[0][0][:30], sets[0][1][:30])
    power = look(sets[2][:20], (few, sets[1], sets[2])).result["power"]
    assert power["planted"] == 100


def test_flat_images_are_counted_and_never_copies(sets):
    fake = sets[2][:40].copy()
    fake[:10] = np.arange(10, dtype=np.uint8)[:, None, None, None]
    black = (np.concatenate([sets[0][0], np.zeros((5, 1, SIZE, SIZE), np.uint8)]), [*sets[0][1], *["black"] * 5])
    found = look(fake, (black, sets[1], sets[2]))
    assert not found.refused
    assert found.result["flat"]["fake"] == 10
    assert any("10 synthetic images are flat" in line for line in found.result["limits"])
    nothing = look(np.zeros((8, 1, SIZE, SIZE), np.uint8), sets)
    assert not nothing.refused
    assert nothing.pairs == []
    assert "nothing to audit" in nothing.result["statement"]


def test_colour_and_grey(sets):
    def colour(images):
        return np.repeat(images, 3, axis=1)

    (train, keys), (held_out, held_keys), honest = sets
    found = look(colour(train[:9]), ((colour(train), keys), (colour(held_out), held_keys), honest))
    assert found.result["near_copies"]["count"] == 9
    with pytest.raises(DataError, match="train 48 x 48 with 1 channel, fake 48 x 48 with 3 channels"):
        look(colour(honest[:5]), sets)


def test_sets_of_other_size_and_empty_sets_are_refused_in_words(sets):
    with pytest.raises(DataError, match="train 48 x 48 with 1 channel, fake 32 x 32"):
        look(sets[2][:, :, :32, :32], sets)
    with pytest.raises(DataError, match="the fake set holds no images"):
        look(sets[2][:0], sets)
    empty = (sets[0], (sets[1][0][:0], []), sets[2])
    assert look(sets[2][:10], empty).result["n_held_out"] == 0


def test_the_same_audit_twice_is_the_same(sets):
    first, again = look(sets[2][:40], sets, seed=5), look(sets[2][:40], sets, seed=5)
    assert first == again


def test_power_is_that_of_the_planted_copies(sets):
    power = look(sets[2], sets).result["power"]
    assert power["planted"] == 100
    assert 0.5 < power["recognised"] <= 1
    assert power["against"]["1 %"] == pytest.approx(1 - (1 - 0.01 * power["recognised"]) ** 200)


def test_the_filter_before_the_comparison_raises_power(sets, monkeypatch):
    """Decision 0020 has the figures."""
    found = [look(sets[2][:60], sets).result["power"]["recognised"]]
    monkeypatch.setattr("medgan.metrics.copies.smoothed", lambda images: images)
    found.append(look(sets[2][:60], sets).result["power"]["recognised"])
    assert found == pytest.approx([0.93, 0.32], abs=0.03)


def test_inception_stands_beside_grey_values_under_its_name(sets):
    class Halves:
        name, sha256, resize, dim = "halves", "ab" * 32, "none", 2

        def __call__(self, images):
            return torch.from_numpy(np.stack([images[:, 0, :20].mean((1, 2)), images[:, 0, 20:].mean((1, 2))], 1)).float()

    part = look(sets[2][:40], sets, extractor=Halves(), reason="asked for").result["features"]
    assert (part["name"], part["sha256"], part["reason"]) == ("halves", "ab" * 32, "asked for")
