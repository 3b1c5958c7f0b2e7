"""careline.toml: strict, all faults at once, and nothing that would let calls hear each other."""

from pathlib import Path

import pytest

from pbx.config import ConfigError, load

pytestmark = pytest.mark.unit


def faults(tmp_path: Path, text: str) -> list[str]:
    """The sentences about a careline.toml."""
    path = tmp_path / "careline.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        load(path)
    return [str(problem).removeprefix(f"{path}: ") for problem in raised.value.problems]


def test_an_empty_file_is_a_whole_configuration_and_paths_are_beside_it(tmp_path: Path) -> None:
    (tmp_path / "careline.toml").write_text("", encoding="utf-8")
    config = load(tmp_path / "careline.toml")
    assert config.dialplans == tmp_path / "dialplans"
    assert config.workers.count == 1


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    assert faults(tmp_path, '[site]\ntime_zone = "Mars"\n[edge]\nudp_prot = 5060\n') == [
        'site.time_zone: "Mars" is not an IANA time zone such as "America/Chicago".',
        'edge.udp_prot: Unknown key "udp_prot". Did you mean "udp_port"?',
    ]


def test_a_missing_file_and_broken_toml_say_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no such file; name one with --config"):
        load(tmp_path / "nothing.toml")
    assert "This is not valid TOML" in faults(tmp_path, "[site\n")[0]


def test_media_ports_of_workers_and_edge_never_overlap_on_one_address(tmp_path: Path) -> None:
    (sentence,) = faults(tmp_path, "[workers]\ncount = 6\n")
    assert "the workers' media ports 10000 to 33999 overlap those of the edge, 30000 to 34999" in sentence
    apart = '[workers]\ncount = 6\naddress = "127.0.0.2"\n'
    (tmp_path / "careline.toml").write_text(apart, encoding="utf-8")
    assert load(tmp_path / "careline.toml").workers.count == 6


def test_media_ports_end_before_the_last_port_there_is(tmp_path: Path) -> None:
    (sentence,) = faults(tmp_path, "[workers]\ncount = 20\n")
    assert "would end at 89999, beyond 65535" in sentence


def test_two_trunks_of_one_name_are_refused(tmp_path: Path) -> None:
    trunk = '[[trunk]]\nname = "a"\nhost = "x.example"\n'
    (sentence,) = faults(tmp_path, trunk + trunk)
    assert 'trunk has two entries named "a"' in sentence
