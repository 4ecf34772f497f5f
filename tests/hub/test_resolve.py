"""Names to folders, against a local stand-in of the hub: what is fetched, what is kept, what is said when it fails."""

from __future__ import annotations

import contextlib
import importlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import ridgeline
from ridgeline.core.errors import ModelError
from ridgeline.core.progress import Progress
from ridgeline.hub import Access, Resolved, resolve
from tests.hub_stand_in import Fault, HubStandIn, closed_port, silent_port
from tests.tiny_gpt2 import write_tiny_gpt2

NEEDED = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}
# What stands beside the weights of the hub's gpt2, and what must never be fetched.
DECOYS = (
    "pytorch_model.bin",
    "tf_model.h5",
    "rust_model.ot",
    "64.tflite",
    "onnx/model.onnx",
    "modeling.py",
    "README.md",
)
DEMO = Path(ridgeline.__file__).parent / "assets" / "demo"
needs_demo = pytest.mark.skipif(not DEMO.is_dir(), reason="the bundled model (src/ridgeline/assets/demo) is not here")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 0.6 MB of weights, so that a download has a middle."""
    folder = write_tiny_gpt2(tmp_path_factory.mktemp("hub") / "gpt2", d_model=64, masks=False)
    for name in DECOYS:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"never to be fetched")
    return folder


@pytest.fixture
def hub(model: Path) -> Iterator[HubStandIn]:
    with HubStandIn({"gpt2": model}) as hub:
        yield hub


def fetch(hub: HubStandIn, cache: Path, name: str | None = "gpt2", offline: bool = False) -> Resolved:
    return resolve(name, Access(endpoint=hub.url, cache_dir=cache, offline=offline))


def test_a_download_is_only_what_is_needed_and_shows_its_progress(hub: HubStandIn, model: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    found = resolve("gpt2", Access(endpoint=hub.url, cache_dir=tmp_path), progress=seen.append)
    assert (found.name, found.source, found.note) == ("gpt2", "hub", None)
    assert hub.downloaded() == NEEDED == {path.name for path in found.text_folder.iterdir()}
    assert (found.text_folder / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    total = sum((model / name).stat().st_size for name in NEEDED)
    assert {(p.phase, p.total) for p in seen} == {("downloading gpt2", total)}
    done = [p.done for p in seen]
    assert done == sorted(done)
    assert (done[0], done[-1], seen[-1].percent) == (0, total, 100)


def test_the_second_time_nobody_is_asked(hub: HubStandIn, tmp_path: Path) -> None:
    first = fetch(hub, tmp_path)
    before = len(hub.requests)
    for name in ("gpt2", None):
        again = fetch(hub, tmp_path, name)
        assert (again.weights, again.name, again.source, again.note) == (first.weights, "gpt2", "cache", None)
    assert fetch(hub, tmp_path, offline=True).weights == first.weights
    assert len(hub.requests) == before


def test_a_lost_connection_is_taken_up_where_it_broke(tmp_path: Path) -> None:
    # The library keeps pieces of 10 MiB: 12.6 MB of masks make a file that is longer than one.
    folder = write_tiny_gpt2(tmp_path / "m", layers=3, positions=1024)
    seen: list[int] = []
    fault = Fault(where="model.safetensors", cut_after=11_000_000, times=2)  # Its HEAD is the first of the two.
    with HubStandIn({"gpt2": folder}, fault) as hub:
        access = Access(endpoint=hub.url, cache_dir=tmp_path / "c")
        found = resolve("gpt2", access, progress=lambda p: seen.append(p.done))
        assert hub.ranges == [f"bytes={10 * 2**20}-"]
    assert (found.text_folder / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert any(10 * 2**20 <= done < seen[-1] for done in seen)


def test_a_sharded_model_comes_with_every_shard(tmp_path: Path) -> None:
    folder = write_tiny_gpt2(tmp_path / "m", shards=3, tokenizer="vocab.json")
    with HubStandIn({"someone/sharded": folder}) as hub:
        found = fetch(hub, tmp_path / "cache", "someone/sharded")
        assert found.name == "someone/sharded"
        assert {path.name for path in found.text_folder.iterdir()} == {path.name for path in folder.iterdir()}


def test_a_broken_off_download_is_not_taken_for_a_model_and_goes_on_later(hub: HubStandIn, tmp_path: Path) -> None:
    hub.fault = Fault(where="model.safetensors", status=404, error_code="EntryNotFound")
    with pytest.raises(ModelError, match="gpt2"):
        fetch(hub, tmp_path)
    with pytest.raises(ModelError, match="not cached"):
        fetch(hub, tmp_path, offline=True)
    hub.fault, hub.requests[:] = None, []
    assert fetch(hub, tmp_path).source == "hub"
    assert hub.downloaded() == {"model.safetensors"}


def test_a_model_cached_under_the_hubs_new_name_is_found(model: Path, tmp_path: Path) -> None:
    with HubStandIn({"openai-community/gpt2": model}) as hub:
        first = fetch(hub, tmp_path, "openai-community/gpt2")
    assert resolve("gpt2", Access(cache_dir=tmp_path, offline=True)).weights == first.weights


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault(status=404, error_code="RepoNotFound"), r"has no model 'gpt2'.*check the name"),
        (Fault(status=401), "401.*log in"),
        (Fault(status=403, error_code="GatedRepo"), "ask for access at .*/gpt2"),
        (Fault(status=429), "limits how often"),
        (Fault(status=500), "answered 500.*later"),
        (Fault(size=10**18), r"needs up to .* GB and .* free; make room"),
        (Fault(where="/resolve/", status=401), "401.*log in"),
    ],
    ids=lambda value: str(value.status or value.size) if isinstance(value, Fault) else "",
)
def test_every_refusal_says_what_to_do(hub: HubStandIn, tmp_path: Path, fault: Fault, says: str) -> None:
    hub.fault = fault
    with pytest.raises(ModelError, match=says):
        fetch(hub, tmp_path)


def test_a_name_nearly_right_is_corrected(hub: HubStandIn, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="did you mean 'gpt2-medium'"):
        fetch(hub, tmp_path, "gpt2-medum")


def test_a_repository_of_pickles_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    for name in ("config.json", "pytorch_model.bin"):
        (tmp_path / "m" / name).write_text("{}")
    with HubStandIn({"old": tmp_path / "m"}) as hub:
        with pytest.raises(ModelError, match=r"only pickled weights.*save_pretrained"):
            fetch(hub, tmp_path / "cache", "old")
        assert hub.downloaded() == set()


def test_a_cache_that_cannot_be_written_is_named(hub: HubStandIn, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ModelError, match=r"cache directory .*file.* cannot be written"):
        fetch(hub, tmp_path / "file")


@pytest.mark.parametrize("port", [closed_port, silent_port])
def test_a_model_asked_for_by_name_never_becomes_another(
    port: type[contextlib.AbstractContextManager[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ridgeline.hub.PROBE_NAMED_S", 0.3)
    with port() as url, pytest.raises(ModelError, match=r"gpt2 is not cached.*check the network"):
        resolve("gpt2", Access(endpoint=url, cache_dir=tmp_path))


@needs_demo
@pytest.mark.parametrize("where", ["refused", "silent", "no such host", "offline", "no such model", "disk full"])
def test_without_a_name_the_demo_steps_in_quickly_and_says_why(where: str, model: Path, tmp_path: Path) -> None:
    importlib.import_module("ridgeline.hub.download")  # Not timed: it depends on the disk.
    with contextlib.ExitStack() as stack:
        if where in ("no such model", "disk full"):
            fault = Fault(size=10**18) if where == "disk full" else None
            url = stack.enter_context(HubStandIn({"gpt2": model} if fault else {}, fault)).url
        elif where == "no such host":
            url = "http://nothing.invalid"
        else:
            url = stack.enter_context(silent_port() if where == "silent" else closed_port())
        began = time.monotonic()
        found = resolve(None, Access(endpoint=url, cache_dir=tmp_path, offline=where == "offline"))
        assert time.monotonic() - began < 3
    assert (found.name, found.source, found.weights) == ("demo", "bundled", DEMO)
    assert found.note is not None
    assert "gpt2" in found.note or url in found.note
    assert found.note.endswith("so the small bundled model 'demo' is served instead.")


@needs_demo
def test_demo_by_name_needs_no_network_and_no_note(tmp_path: Path) -> None:
    nowhere = Access(endpoint="http://nothing.invalid", cache_dir=tmp_path)
    assert resolve("demo", nowhere) == Resolved(DEMO, DEMO, "demo", "bundled")


def test_a_download_that_stalls_is_given_up(hub: HubStandIn, tmp_path: Path) -> None:
    from ridgeline.hub.access import Access
    from ridgeline.hub.download import Download

    hub.fault = Fault(where="model.safetensors", pace_s=60)
    download = Download("gpt2", Access(hub.url, tmp_path), probe_s=5, stall_s=0.5)
    with pytest.raises(ModelError, match=r"does not answer \(waited 0.5 s\)"):
        download.run(lambda _: None)


def test_the_hubs_own_library_is_content_with_the_stand_in(hub: HubStandIn, model: Path, tmp_path: Path) -> None:
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download("gpt2", endpoint=hub.url, cache_dir=tmp_path, allow_patterns="*.json"))
    assert (folder / "config.json").read_bytes() == (model / "config.json").read_bytes()


def test_nothing_here_imports_torch_and_local_models_need_no_hub_library(model: Path) -> None:
    program = f"""
import sys
from ridgeline.hub import Access, resolve
assert resolve({str(model)!r}).source == "local"
assert "huggingface_hub" not in sys.modules
import ridgeline.hub.download, ridgeline.text.stream, ridgeline.core.checkpoint
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_weights_that_are_refused_are_not_downloaded(tmp_path: Path) -> None:
    folder = write_tiny_gpt2(tmp_path / "m", config={"quantization_config": {"quant_method": "gptq", "bits": 4}})
    with HubStandIn({"rounded": folder}) as hub:
        with pytest.raises(ModelError, match=r"quantised by GPTQ .*take the model it was made from"):
            fetch(hub, tmp_path / "cache", "rounded")
        assert hub.downloaded() == {"config.json"}
