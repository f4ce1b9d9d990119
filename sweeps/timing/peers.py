"""The same training step in plain PyTorch, timed in turn with the engine.

One trial's step: the teacher's forward pass and the student's forward pass, backward pass and
AdamW update, on views that are given. PyTorch uses all cores.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn  # pyright: ignore[reportMissingImports]

from distill_bench.errors import UserError
from distill_bench.networks.bit import EXPANSION, BiTConfig
from distill_bench.networks.layers import Params
from distill_bench.tasks.parameters import load_teachers
from distill_bench.tasks.task import Task
from distill_bench.training.engine import Engine
from distill_bench.training.source import init_student
from distill_bench.views.step_views import view_specs
from optimizers.contract.api import Optimizer
from sweeps.timing.measure import sweep

ROUNDS = 5  # blocks of each contestant
BLOCK = 40  # steps of PyTorch in a block


class StdConv2d(nn.Conv2d):
    """Convolution without bias. Its kernel is standardised at each use, unless it is frozen."""

    frozen = False

    def __init__(self, cin: int, cout: int, size: int, stride: int = 1):
        super().__init__(cin, cout, size, stride, padding=size // 2, bias=False)

    def standardized(self) -> Tensor:
        var, mean = torch.var_mean(self.weight, dim=(1, 2, 3), correction=0, keepdim=True)
        return (self.weight - mean) * torch.rsqrt(var + 1e-10)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight if self.frozen else self.standardized()
        return F.conv2d(x, kernel, None, self.stride, self.padding)


class Unit(nn.Module):
    """A pre-activation bottleneck, see networks/bit.py."""

    def __init__(self, cin: int, middle: int, groups: int, stride: int, project: bool):
        super().__init__()
        cout = EXPANSION * middle
        self.norm_a, self.a = nn.GroupNorm(groups, cin), StdConv2d(cin, middle, 1)
        self.norm_b, self.b = nn.GroupNorm(groups, middle), StdConv2d(middle, middle, 3, stride)
        self.norm_c, self.c = nn.GroupNorm(groups, middle), StdConv2d(middle, cout, 1)
        self.proj = StdConv2d(cin, cout, 1, stride) if project else None

    def forward(self, x: Tensor) -> Tensor:
        pre = F.relu(self.norm_a(x))
        shortcut = x if self.proj is None else self.proj(pre)
        y = self.b(F.relu(self.norm_b(self.a(pre))))
        return shortcut + self.c(F.relu(self.norm_c(y)))


class BiT(nn.Module):
    """Images [N, C, H, W] -> logits [N, K]; the root is the small one."""

    def __init__(self, config: BiTConfig):
        super().__init__()
        self.root = StdConv2d(config.channels, config.width, 3, 2)
        units, cin = [], config.width
        for b, depth in enumerate(config.depths):
            middle = config.width * 2**b
            for u in range(depth):
                stride = 2 if b > 0 and u == 0 else 1
                units.append(Unit(cin, middle, config.groups, stride, project=u == 0))
                cin = EXPANSION * middle
        self.units = nn.Sequential(*units)
        self.norm = nn.GroupNorm(config.groups, cin)
        self.head = nn.Linear(cin, config.classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.norm(self.units(self.root(x)))).mean((2, 3)))

    @torch.no_grad()
    def freeze(self) -> BiT:
        """Standardises all kernels once, for parameters that will not change."""
        for module in self.modules():
            if isinstance(module, StdConv2d):
                module.weight.copy_(module.standardized())
                module.frozen = True
        return self.requires_grad_(False)


def state_of(params: Params) -> dict[str, Tensor]:
    """The state of `BiT` for the parameters of networks/bit.py, or for a gradient of them."""
    state = {}

    def norm(key: str, part: Params) -> None:
        state[f"{key}.weight"] = _tensor(part["gamma"])
        state[f"{key}.bias"] = _tensor(part["beta"])

    def conv(key: str, part: Params) -> None:
        kernel = np.asarray(part["standardized_conv2d"]["kernel"])
        state[f"{key}.weight"] = _tensor(kernel.transpose(3, 2, 0, 1))

    conv("root", params["root_block"])
    blocks = sorted(name for name in params if name.startswith("block"))
    for i, unit in enumerate(
        params[block][name] for block in blocks for name in sorted(params[block])
    ):
        for stage in "abc":
            norm(f"units.{i}.norm_{stage}", unit[stage]["group_norm"])
            conv(f"units.{i}.{stage}", unit[stage])
        if "proj" in unit["a"]:
            conv(f"units.{i}.proj", unit["a"]["proj"])
    norm("norm", params["group_norm"])
    head = params["head"]["conv2d"]
    state["head.weight"], state["head.bias"] = _tensor(head["kernel"]).T, _tensor(head["bias"])
    return state


def _tensor(array: Any) -> Tensor:
    return torch.tensor(np.ascontiguousarray(array))


def check(task: Task) -> None:
    """
    Raises:
      UserError: if the task is not like digits, whose step is written here.
    """
    if (
        not isinstance(task.student, BiTConfig)
        or [network.root for network in (task.student, task.teacher)] != ["small", "small"]
        or len(task.teachers) != 1
        or view_specs(task)[1] != (0,)
        or task.precision != "float32"
    ):
        raise UserError(
            f"--against=pytorch is for tasks like digits: a small float32 BiT student, and one "
            f"teacher that sees the same views. {task.name} is different."
        )


def make_networks(task: Task, params: Params) -> tuple[BiT, BiT]:
    """The frozen teacher, and a student with these parameters."""
    assert isinstance(task.student, BiTConfig)
    networks = BiT(task.teacher), BiT(task.student)
    for network, own in zip(networks, (load_teachers(task)[0], params), strict=True):
        network.load_state_dict(state_of(own))
    # PyTorch's advice for convolutions on a CPU: the eager step takes three quarters of the time.
    for network in networks:
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return networks[0].freeze(), networks[1]


def make_loss(task: Task, teacher: BiT, student: BiT) -> Callable[[Tensor], Tensor]:
    """The loss of the student on views [N, C, H, W]: temperature^2 * KL(teacher || student)."""

    def loss(views: Tensor) -> Tensor:
        with torch.no_grad():
            target = F.log_softmax(teacher(views) / task.temperature, dim=-1)
        own = F.log_softmax(student(views) / task.temperature, dim=-1)
        kl = F.kl_div(own, target, reduction="batchmean", log_target=True)
        return task.temperature**2 * kl

    return loss


def adamw(student: BiT, values: dict[str, Any]) -> torch.optim.Optimizer:
    """PyTorch's fused AdamW with our hyperparameters; only kernels decay."""
    parameters = list(student.parameters())
    kernels = [p for p in parameters if p.ndim > 1]
    vectors = [p for p in parameters if p.ndim <= 1]
    return torch.optim.AdamW(
        [
            {"params": kernels, "weight_decay": values["weight_decay"]},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=values["lr"],
        betas=(values["b1"], values["b2"]),
        eps=values["eps"],
        fused=True,
    )


def make_step(
    task: Task, params: Params, opt: Optimizer, compiled: bool
) -> Callable[[Tensor], Tensor]:
    """A fresh student's training step: views [N, C, H, W] -> loss, before the update."""
    teacher, student = make_networks(task, params)
    loss_of: Any = make_loss(task, teacher, student)
    loss_of = torch.compile(loss_of, fullgraph=True, dynamic=False) if compiled else loss_of
    optimizer = adamw(student, dict(opt.defaults))

    def step(views: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(views)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def compare(engine: Engine, opt: Optimizer, lanes: int, steps: int) -> dict[str, Any]:
    """Milliseconds per trial-step of the engine and of PyTorch, eager and compiled, in turn.

    Medians over ROUNDS blocks; a ratio is the median of the rounds' ratios. The engine also makes
    the views and evaluates its students, PyTorch does not.

    The task must have passed `check`, and `opt` must be AdamW.
    """
    task = engine.source.task
    params = init_student(task, 0)
    eager = make_step(task, params, opt, compiled=False)
    chunk = engine.chunk(0, 0).on(engine.layout)
    views = torch.from_numpy(np.array(chunk.views)[0]).permute(0, 1, 4, 2, 3)
    figures: dict[str, Any] = {"torch": torch.__version__, "torch_threads": torch.get_num_threads()}
    contestants = {
        "engine": lambda: sweep(engine, opt, lanes, steps)["ms_per_trial_step"],
        "torch_eager": lambda: _ms(eager, views),
    }
    began = time.perf_counter()
    try:
        compiled = make_step(task, params, opt, compiled=True)
        compiled(views[0])
    except Exception as error:  # no C++ compiler, for example
        figures["torch_compile"] = f"not measured: {str(error).strip().splitlines()[0]}"
    else:
        figures["torch_compile_seconds"] = time.perf_counter() - began
        contestants["torch_compiled"] = lambda: _ms(compiled, views)
    for warm_up in contestants.values():
        warm_up()
    rounds = [{name: run() for name, run in contestants.items()} for _ in range(ROUNDS)]
    for name in contestants:
        unit = "ms_per_trial_step" if name == "engine" else "ms_per_step"
        figures[f"{name}_{unit}"] = statistics.median(taken[name] for taken in rounds)
    for name in [*contestants][1:]:
        ratios = [taken[name] / taken["engine"] for taken in rounds]
        figures[f"{name}_over_engine"] = statistics.median(ratios)
    return figures


def _ms(step: Callable[[Tensor], Tensor], views: Tensor) -> float:
    """Milliseconds of a step."""
    began = time.perf_counter()
    for own in itertools.islice(itertools.cycle(views), BLOCK):
        step(own)
    return 1e3 * (time.perf_counter() - began) / BLOCK
