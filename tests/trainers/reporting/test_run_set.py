"""What runs of a folder are told apart by."""

from trainers.reporting.run_set import _variant_names


def config(policy, **options):
    return {"agent": {"name": "latent_mpc", "act_with": "actor"}, "policy": {"name": policy, **options}}


def test_parts_are_named_before_their_settings():
    configs = [config("gps", a=1, b=2, c=3, d=4), config("dyna", e=1, f=2, g=3, h=4)]
    assert [name.partition(",")[0] for name in _variant_names(configs)] == ["policy.name=gps", "policy.name=dyna"]


def test_two_settings_never_share_a_name():
    """Six differences, the first four of which are the same for two of three."""
    configs = [config("gps", **dict.fromkeys("abcde", n), f=last) for n, last in ((1, 1), (1, 2), (3, 3))]
    names = _variant_names(configs)
    assert len(set(names)) == 3 and names[2].endswith(", ...") and names[0].endswith("policy.f=1")


def test_equal_settings_have_one_name_and_a_single_one_needs_none():
    assert len(set(_variant_names([config("gps"), config("gps"), config("dyna")]))) == 2
    assert _variant_names([config("gps"), config("gps")]) == ["", ""]
