"""Tables of names: nothing imported until asked for, unknown names answered with a hint, every entry loads."""

from __future__ import annotations

import pytest

from medgan.data import RECIPES
from medgan.errors import ConfigError
from medgan.metrics import EXTRACTORS, METRICS
from medgan.networks import NETWORKS
from medgan.registry import Registry


def test_an_unknown_name_gets_a_hint():
    table = Registry("metric", {"kid": "no.such:Thing", "fid": "no.such:Other"}, group="medgan.none")
    with pytest.raises(ConfigError) as error:
        table.get("kidd")
    assert error.value.line == "ERROR E_CONFIG unknown metric 'kidd'; fix: did you mean 'kid'?"
    assert table.names() == ["kid", "fid"]


@pytest.mark.parametrize(
    ("table", "name"), [(t, n) for t in (RECIPES, NETWORKS, METRICS, EXTRACTORS) for n in t.names()], ids=lambda v: getattr(v, "kind", v)
)
def test_every_entry_can_be_imported(table, name):
    assert table.get(name) is not None


def test_a_name_registered_twice_is_an_error(monkeypatch):
    from importlib.metadata import EntryPoint

    from medgan import registry

    monkeypatch.setattr(registry, "entry_points", lambda group: [EntryPoint("fid", "other:FID", group)])
    with pytest.raises(ConfigError, match="registered twice"):
        METRICS.names()
