"""Two processes filter their shards together: equally many batches, nothing lost, no waiting."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest

from processes_helpers import launch_two

pytestmark = pytest.mark.slow

COMMON = """
import json, sys
from pathlib import Path

import torch
from torch.utils.data import DataLoader, DistributedSampler

from secondary_learners.filtering.stream import filtered
from secondary_learners.filtering.thresholds import Shifting

folder, result = Path(sys.argv[1]), {}


class First:
    '''Scores an example by its first token.'''

    def score(self, ids, mask):
        return ids[:, 0].float()

    def quantile(self, q):
        return 9 * q


class Data(torch.utils.data.Dataset):
    def __init__(self, count, low=None):
        random = torch.Generator().manual_seed(0)
        self.ids = torch.randint(0, 10, (count, 5), generator=random)
        if low is not None:  # one of two shards has nothing to keep
            self.ids[low::2, 0] = 0

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, place):
        return {"input_ids": self.ids[place], "place": place}


def places(batches):
    return [batch["place"].tolist() for batch in batches]


def shard(data, **options):
    return DataLoader(data, 8, sampler=DistributedSampler(data, **options))


def loss_of(model, batch):
    return model(batch["input_ids"].float()).square().mean()
"""

SCRIPT = """
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")


def gathered(value):
    both = [None, None]
    dist.all_gather_object(both, value)
    return both


def train(loader):
    '''What each process trained on in plain DDP, and whether their weights are the same.'''
    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Linear(5, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    trained = []
    for batch in loader:
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()
        trained += places([batch])
    weights = gathered(model.module.weight.tolist())
    return {"batches": gathered(trained), "equal": weights[0] == weights[1]}


data = Data(700)
alone = filtered(shard(data), First(), 6.0)
result["alone"] = [len(batches) for batches in gathered(places(alone))]
result["kept"] = [place for place, ids in enumerate(data.ids) if ids[0] >= 6]
joint = filtered(shard(data), First(), 6.0, joint=True)
result["joint"] = train(joint)
result["reports"] = gathered([joint.report.seen, joint.report.kept, joint.report.batches])
sided = Data(400, low=1)
result["sided kept"] = [place for place, ids in enumerate(sided.ids) if ids[0] >= 5]
for drop_last in (False, True):
    loader = DataLoader(sided, 8, sampler=DistributedSampler(sided, shuffle=False),
                        drop_last=drop_last)
    result[f"sided {drop_last}"] = train(filtered(loader, First(), 5.0, joint=True))
nothing = filtered(shard(data), First(), 99.0, joint=True)
result["nothing"] = train(nothing)


def shifting():
    return filtered(shard(data), First(), Shifting(8.0, 3.0, 4), joint=True)


whole, states, batches = shifting(), [], []
for batch in whole:
    batches += places([batch])
    states.append(whole.state_dict())
result["resumed"] = []
for number in range(0, len(states), 5):
    again = shifting()
    again.load_state_dict(states[number])
    result["resumed"].append(all(gathered(places(again) == batches[number + 1:])))
result["pending"] = any(gathered(any(state["pending"] for state in states)))
result["shifting"] = gathered(batches)
if dist.get_rank() == 0:
    (folder / "result.json").write_text(json.dumps(result))
dist.barrier()
dist.destroy_process_group()
"""

ACCELERATE = """
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed

accelerator = Accelerator(cpu=True)
set_seed(accelerator.process_index)  # the order is accelerate's to bring together
data = Data(300)


def prepared():
    loader = accelerator.prepare(DataLoader(data, 8, shuffle=True))
    return filtered(loader, First(), 6.0, joint=True)


torch.manual_seed(0)
model = torch.nn.Linear(5, 3)
model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.01))
loader, epochs = prepared(), []
for epoch in range(2):
    trained, states = [], []
    for batch in loader:
        with accelerator.accumulate(model):
            accelerator.backward(loss_of(model, batch))
            optimizer.step()
            optimizer.zero_grad()
        trained += places([batch])
        states.append(loader.state_dict())
    epochs.append(gather_object([trained]))
again = prepared()
again.load_state_dict(states[2])
result["resumed"] = all(gather_object([places(again) == trained[3:]]))
result["epochs"] = epochs
result["kept"] = [place for place, ids in enumerate(data.ids) if ids[0] >= 6]
weights = gather_object([accelerator.unwrap_model(model).weight.tolist()])
result["equal"] = weights[0] == weights[1]
if accelerator.is_main_process:
    (folder / "result.json").write_text(json.dumps(result))
accelerator.wait_for_everyone()
accelerator.end_training()
"""

LIGHTNING = """
import lightning


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model, self.trained = torch.nn.Linear(5, 3), []

    def training_step(self, batch, number):
        self.trained += places([batch])
        return loss_of(self.model, batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)

    def train_dataloader(self):  # called once the processes have met
        sampler = DistributedSampler(data)
        return filtered(DataLoader(data, 8, sampler=sampler), First(), 6.0, joint=True)


data = Data(300)
module = Module()
trainer = lightning.Trainer(
    accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, use_distributed_sampler=False,
    logger=False, enable_checkpointing=False, enable_progress_bar=False,
)
trainer.fit(module)
both = [None, None]
torch.distributed.all_gather_object(both, [module.trained, module.model.weight.tolist()])
result["epochs"] = [[trained for trained, _ in both]]
result["kept"] = [place for place, ids in enumerate(data.ids) if ids[0] >= 6]
result["equal"] = both[0][1] == both[1][1]
if trainer.is_global_zero:
    (folder / "result.json").write_text(json.dumps(result))
torch.distributed.barrier()
"""


def run(folder, script):
    for code, message in launch_two(COMMON + script, folder):
        assert code == 0, message
    return json.loads((folder / "result.json").read_text())


def assert_shared(batches, kept, lost=1):
    """Both have as many batches, of the same sizes, and together what is kept, once."""
    sizes = [[len(batch) for batch in of_one] for of_one in batches]
    assert sizes[0] == sizes[1]
    assert all(size == 8 for size in sizes[0][:-1])
    places = [place for of_one in batches for batch in of_one for place in batch]
    assert len(set(places)) == len(places) >= len(kept) - lost
    assert set(places) <= set(kept)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return run(tmp_path_factory.mktemp("processes"), SCRIPT)


def test_yield_equally_many_batches_under_ddp(result):
    assert result["alone"][0] != result["alone"][1]  # on which plain DDP would wait for ever
    assert_shared(result["joint"]["batches"], result["kept"])
    assert result["joint"]["equal"]
    count = len(result["joint"]["batches"][0])
    assert [batches for _, _, batches in result["reports"]] == [count, count]
    assert [seen for seen, _, _ in result["reports"]] == [350, 350]
    assert sum(kept for _, kept, _ in result["reports"]) == len(result["kept"])


def test_share_when_one_has_nothing_to_keep(result):
    for drop_last in (False, True):
        sided = result[f"sided {drop_last}"]
        assert_shared(sided["batches"], result["sided kept"], lost=15 if drop_last else 1)
        assert sided["equal"]
        assert len(sided["batches"][0]) > 4
    assert all(len(batch) == 8 for batch in result["sided True"]["batches"][1])
    assert result["nothing"]["batches"] == [[], []]


def test_go_on_as_if_never_stopped(result):
    assert len(result["resumed"]) > 4
    assert all(result["resumed"])
    assert result["pending"]  # some of the states had survivors in them
    assert [len(batches) for batches in result["shifting"]] == [
        len(result["shifting"][0]),
        len(result["shifting"][0]),
    ]


def test_with_accelerate(tmp_path):
    pytest.importorskip("accelerate")
    result = run(tmp_path, ACCELERATE)
    for batches in result["epochs"]:
        # accelerate repeats an example or two, to make the shards even.
        assert [len(batch) for batch in batches[0]] == [len(batch) for batch in batches[1]]
        places = [place for of_one in batches for batch in of_one for place in batch]
        assert set(places) <= set(result["kept"])
        assert len(result["kept"]) - 1 <= len(places) <= len(result["kept"]) + 8
        assert len(set(places)) >= len(result["kept"]) - 1
    assert result["epochs"][0] != result["epochs"][1]
    assert result["resumed"]
    assert result["equal"]


@pytest.mark.skipif(find_spec("lightning") is None, reason="lightning is not installed")
def test_with_lightning(tmp_path):
    result = run(tmp_path, LIGHTNING)
    assert_shared(result["epochs"][0], result["kept"])
    assert result["equal"]
